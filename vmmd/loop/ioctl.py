"""One ioctl, one descriptor: what ``kvm`` and ``vcpufd`` stand on."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from vmmd._native import ffi
from vmmd.errors import HostError

MAX_CPUID_ENTRIES = 256

_WAYS_OUT = {
    ("KVM_CREATE_VM", errno.EBUSY): "another hypervisor holds the processor's"
    " virtualization: unload it",
    ("KVM_CREATE_VCPU", errno.EINVAL): "more vCPUs than this KVM has",
}
_WAYS_OUT_OF_ERRNO = {
    errno.ENOMEM: "the host is out of memory: free some, or give the VM less",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.ENFILE: "too many open files on this host: raise fs.file-max",
}


def host_error(call: str, error: OSError) -> HostError:
    """``error`` of ``call`` as a HostError: the call, the errno, the way out."""
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    hint = _WAYS_OUT.get((call, number)) or _WAYS_OUT_OF_ERRNO.get(number)
    text = f"{call}: {os.strerror(number)} ({name})"
    return HostError(f"{text}; {hint}" if hint else text)


def ioctl(fd: int, call: str, number: int, argument: int | bytearray = 0) -> int:
    try:
        return fcntl.ioctl(fd, number, argument)
    except OSError as error:
        raise host_error(call, error) from error


def get_struct(fd: int, call: str, number: int, size: int) -> bytes:
    buffer = bytearray(size)
    ioctl(fd, call, number, buffer)
    return bytes(buffer)


def buffer_address(buffer: bytearray) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


class OwnedFd:
    """Owns one descriptor. ``fd`` is -1 once closed; closing twice is allowed."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def get_cpuid(fd: int, call: str, number: int) -> bytes:
    buffer = bytearray(8 + 40 * MAX_CPUID_ENTRIES)
    struct.pack_into("<II", buffer, 0, MAX_CPUID_ENTRIES, 0)
    ioctl(fd, call, number, buffer)
    (count,) = struct.unpack_from("<I", buffer)
    return bytes(buffer[8 : 8 + 40 * count])
