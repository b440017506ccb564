"""Guest memory whose pages come from a page server, by userfaultfd.

The server listens on a Unix socket. It is sent one message: a JSON array with an
object a region, and the userfaultfd beside it. From then on it answers faults by
UFFDIO_COPY and takes REMOVE events for "zero from now on"; it never answers on
the socket. If it dies, whoever touches a page that is missing waits forever.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from typing import TYPE_CHECKING

import trio

from vmmd._native import ffi, lib
from vmmd.errors import HostError
from vmmd.loop.files import map_guest_memory, unmap_guest_memory
from vmmd.rust import io_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmmd.memory import GuestMemory

CONNECT_S = 10.0
_SUN_LEN = 108  # bytes of sun_path, one of them for the NUL
_DEVICE = "/dev/userfaultfd"
_IOC_NEW = 0xAA00
_API, _REGISTER = 0xC018AA3F, 0xC020AA00
_API_VERSION, _EVENT_REMOVE, _MODE_MISSING = 0xAA, 1 << 3, 1


class PageServer:
    """Our ends of a connection to a page server: the userfaultfd and the socket.

    Both stay open while memory is in use: a server whose socket ends gives up.
    """

    def __init__(self, uffd: int, connection: socket.socket) -> None:
        self.uffd = uffd
        self._connection = connection

    def close(self) -> None:
        """Close both, once the memory is unmapped; again is harmless."""
        if self.uffd >= 0:
            uffd, self.uffd = self.uffd, -1
            os.close(uffd)
        self._connection.close()


async def map_served_memory(
    regions: Sequence[tuple[int, int]], path: str, *, huge_pages: bool = False
) -> tuple[GuestMemory, PageServer]:
    """Memory for ``(gpa, size)`` regions that the server at ``path`` fills.

    HostError with Firecracker's text, which follows ``Error creating guest memory
    from uffd: ``; what the host does not allow is named. Nothing stays open then.
    """
    try:
        memory = map_guest_memory(regions, huge_pages=huge_pages)
    except HostError as error:
        raise HostError(f"Failed to restore guest memory: {error}") from error
    try:
        uffd = _open()
    except BaseException:
        unmap_guest_memory(memory)
        raise
    try:
        _register(uffd, memory)
        message = describe(memory, page_size=2 << 20 if huge_pages else 4096)
        # A server that does not accept must not stop the loop.
        connection = await trio.to_thread.run_sync(_hand_over, path, message, uffd)
    except BaseException:
        os.close(uffd)
        unmap_guest_memory(memory)
        raise
    return memory, PageServer(uffd, connection)


def describe(memory: GuestMemory, page_size: int) -> bytes:
    """The message: where each region is here, and at which offset of the file."""
    offset, regions = 0, []
    for index in range(len(memory.regions)):
        region = memory.native.region[index]
        size = int(region.size)
        regions.append(
            {
                "base_host_virt_addr": int(ffi.cast("uintptr_t", region.host)),
                "size": size,
                "offset": offset,
                "page_size": page_size,
                "page_size_kib": page_size,  # bytes too, by its history
            }
        )
        offset += size
    return json.dumps(regions, separators=(",", ":")).encode()


def _open() -> int:
    """A userfaultfd that also serves faults of the kernel, as KVM's are."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    fd = -1
    try:
        try:
            device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            fd = _by_syscall(flags)
        else:
            try:
                fd = fcntl.ioctl(device, _IOC_NEW, flags)
            finally:
                os.close(device)
        api = bytearray(struct.pack("<QQQ", _API_VERSION, _EVENT_REMOVE, 0))
        fcntl.ioctl(fd, _API, api)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise HostError(
            f"Failed to UFFD object: {io_error(error)}{_hint(error)}"
        ) from (error)
    return fd


def _by_syscall(flags: int) -> int:
    fd: int = lib.files_userfaultfd(flags)
    if fd < 0:
        number = ffi.errno
        raise OSError(number, os.strerror(number))
    return fd


def _hint(error: OSError) -> str:
    if not isinstance(error, PermissionError):
        return ""
    return (
        f"; allow it by access to {_DEVICE}, by CAP_SYS_PTRACE, or by "
        "sysctl vm.unprivileged_userfaultfd=1"
    )


def _register(uffd: int, memory: GuestMemory) -> None:
    for index in range(len(memory.regions)):
        region = memory.native.region[index]
        host = int(ffi.cast("uintptr_t", region.host))
        argument = struct.pack("<QQQQ", host, region.size, _MODE_MISSING, 0)
        try:
            fcntl.ioctl(uffd, _REGISTER, bytearray(argument))
        except OSError as error:
            text = "Failed to register memory address range with the userfaultfd object"
            raise HostError(f"{text}: {io_error(error)}") from error


def _hand_over(path: str, message: bytes, uffd: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_S)
    step = "Failed to connect to UDS Unix stream"
    try:
        if "\0" in path:
            raise ValueError("paths must not contain interior null bytes")
        if len(os.fsencode(path)) >= _SUN_LEN:
            raise ValueError("path must be shorter than SUN_LEN")
        connection.connect(path)
        step = "Failed to sends file descriptor"
        sent = socket.send_fds(connection, [message], [uffd])
        connection.sendall(message[sent:])
    except (OSError, ValueError) as error:
        connection.close()
        why = io_error(error) if isinstance(error, OSError) and error.errno else error
        raise HostError(f"{step}: {why}") from error
    return connection
