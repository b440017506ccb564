"""A vCPU's state, as the kernel's own bytes; its run page.

``vmmd.cpu.registers`` gives the bytes names. Who sets what in which order is
the loop's business.
"""

from __future__ import annotations

import enum
import mmap
import struct
from typing import TYPE_CHECKING

from vmmd.cpu.msrs import chunks, pack_chunks, pack_msrs, unpack_msrs
from vmmd.errors import HostError
from vmmd.loop.ioctl import (
    OwnedFd,
    buffer_address,
    get_cpuid,
    get_struct,
    host_error,
    ioctl,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vmmd.cpu.msrs import Msr

_TRANSLATE = 0xC018AE85
_GET_MSRS = 0xC008AE88
_SET_MSRS = 0x4008AE89
_SET_CPUID2 = 0x4008AE90
_GET_CPUID2 = 0xC008AE91
_SET_TSC_KHZ = 0xAEA2
_GET_TSC_KHZ = 0xAEA3
_GET_XSAVE2 = 0x9000AECF
_KVMCLOCK_CTRL = 0xAEAD
_SET_DEVICE_ATTR = 0x4018AEE1
_GET_DEVICE_ATTR = 0x4018AEE2
_HAS_DEVICE_ATTR = 0x4018AEE3
_VCPU_TSC_CTRL = 0
_VCPU_TSC_OFFSET = 0
XSAVE_BYTES = 4096


class VcpuPart(enum.Enum):
    """Fixed-size vCPU state: KVM_GET_* number, KVM_SET_* number, bytes.

    They are attributes, and so are the calls' names: an enum's ``value`` and
    ``name`` are functions, and a restore asks for them often.
    """

    REGS = (0x8090AE81, 0x4090AE82, 144)
    SREGS = (0x8138AE83, 0x4138AE84, 312)
    FPU = (0x81A0AE8C, 0x41A0AE8D, 416)
    LAPIC = (0x8400AE8E, 0x4400AE8F, 1024)
    MP_STATE = (0x8004AE98, 0x4004AE99, 4)
    VCPU_EVENTS = (0x8040AE9F, 0x4040AEA0, 64)
    DEBUGREGS = (0x8080AEA1, 0x4080AEA2, 128)
    XCRS = (0x8188AEA6, 0x4188AEA7, 392)
    XSAVE = (0x9000AEA4, 0x5000AEA5, XSAVE_BYTES)

    def __init__(self, get_number: int, set_number: int, size: int) -> None:
        self.get_number, self.set_number, self.size = get_number, set_number, size
        self.get_call, self.set_call = f"KVM_GET_{self.name}", f"KVM_SET_{self.name}"


class VcpuFd(OwnedFd):
    """A vCPU's descriptor and its ``run`` page (a shared mapping of kvm_run).

    State may be read and set only while no thread is in KVM_RUN for it: the
    call would wait for the guest. ``scales_tsc``: KVM_CAP_TSC_CONTROL;
    ``tsc_scaled``: its TSC was given a frequency.
    """

    def __init__(
        self,
        fd: int,
        index: int,
        run_size: int,
        xsave_size: int,
        *,
        scales_tsc: bool = False,
    ) -> None:
        super().__init__(fd)
        self.scales_tsc = scales_tsc
        self.tsc_scaled = False
        self.index = index
        try:
            self.run = mmap.mmap(fd, run_size)  # which takes a descriptor, too
        except OSError as error:
            super().close()
            raise host_error("mmap of kvm_run", error) from error
        self.xsave_size = xsave_size

    def close(self) -> None:
        """Unmap the run page and close; only after its thread was joined."""
        if self.fd >= 0:
            self.run.close()
        super().close()

    def get(self, part: VcpuPart) -> bytes:
        """KVM_GET_<part>: the kernel's struct."""
        if part is VcpuPart.XSAVE and self.xsave_size > XSAVE_BYTES:
            return get_struct(self.fd, "KVM_GET_XSAVE2", _GET_XSAVE2, self.xsave_size)
        return get_struct(self.fd, part.get_call, part.get_number, part.size)

    def set(self, part: VcpuPart, raw: bytes) -> None:
        """KVM_SET_<part>. ValueError if ``raw`` has not the struct's size."""
        size = self.xsave_size if part is VcpuPart.XSAVE else part.size
        if len(raw) != size:
            raise ValueError(f"{part.name} is {size} bytes, got {len(raw)}")
        ioctl(self.fd, part.set_call, part.set_number, bytearray(raw))

    def get_cpuid2(self) -> bytes:
        """KVM_GET_CPUID2: the entries, 40 bytes each."""
        return get_cpuid(self.fd, "KVM_GET_CPUID2", _GET_CPUID2)

    def set_cpuid2(self, entries: bytes) -> None:
        """KVM_SET_CPUID2 of entries of 40 bytes; before any other state."""
        argument = bytearray(struct.pack("<II", len(entries) // 40, 0) + entries)
        ioctl(self.fd, "KVM_SET_CPUID2", _SET_CPUID2, argument)

    def get_msrs(self, indices: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """KVM_GET_MSRS: (index, value) of each. HostError names the one refused."""
        out: list[Msr] = []
        for chunk in chunks(tuple((index, 0) for index in indices)):
            buffer = bytearray(pack_msrs(chunk))
            done = ioctl(self.fd, "KVM_GET_MSRS", _GET_MSRS, buffer)
            _check_msrs("KVM_GET_MSRS", chunk, done)
            out += unpack_msrs(bytes(buffer))
        return tuple(out)

    def set_msrs(self, entries: Sequence[tuple[int, int]]) -> None:
        """KVM_SET_MSRS of (index, value), in order; HostError names the one refused."""
        self.set_packed_msrs(pack_chunks(tuple(entries)))

    def set_packed_msrs(self, chunks: Iterable[tuple[tuple[Msr, ...], bytes]]) -> None:
        """The same of what :func:`vmmd.cpu.msrs.pack_chunks` gave."""
        for chunk, raw in chunks:
            done = ioctl(self.fd, "KVM_SET_MSRS", _SET_MSRS, bytearray(raw))
            _check_msrs("KVM_SET_MSRS", chunk, done)

    def get_tsc_khz(self) -> int:
        """KVM_GET_TSC_KHZ."""
        return ioctl(self.fd, "KVM_GET_TSC_KHZ", _GET_TSC_KHZ)

    def set_tsc_khz(self, khz: int) -> None:
        """KVM_SET_TSC_KHZ: needs scaling unless it is (nearly) the host's."""
        ioctl(self.fd, "KVM_SET_TSC_KHZ", _SET_TSC_KHZ, khz)
        self.tsc_scaled = True

    def has_tsc_offset(self) -> bool:
        """Whether this KVM has the TSC offset as an attribute of a vCPU."""
        try:
            self._tsc_attr("KVM_HAS_DEVICE_ATTR", _HAS_DEVICE_ATTR, bytearray(8))
        except HostError:
            return False
        return True

    def get_tsc_offset(self) -> int:
        """The TSC offset: guest TSC less host TSC, modulo 2^64."""
        value = bytearray(8)
        self._tsc_attr("KVM_GET_DEVICE_ATTR", _GET_DEVICE_ATTR, value)
        return int.from_bytes(value, "little")

    def set_tsc_offset(self, offset: int) -> None:
        """Set the TSC offset."""
        value = bytearray(struct.pack("<Q", offset))
        self._tsc_attr("KVM_SET_DEVICE_ATTR", _SET_DEVICE_ATTR, value)

    def kvmclock_ctrl(self) -> None:
        """KVM_KVMCLOCK_CTRL: the guest was stopped. HostError without a kvmclock."""
        ioctl(self.fd, "KVM_KVMCLOCK_CTRL", _KVMCLOCK_CTRL)

    def translate(self, linear: int) -> int | None:
        """KVM_TRANSLATE: the guest-physical address, None where nothing is mapped."""
        buffer = bytearray(struct.pack("<Q16x", linear))
        ioctl(self.fd, "KVM_TRANSLATE", _TRANSLATE, buffer)
        physical, valid = struct.unpack_from("<QB", buffer, 8)
        return physical if valid else None

    def _tsc_attr(self, call: str, number: int, value: bytearray) -> None:
        argument = struct.pack(
            "<IIQQ", 0, _VCPU_TSC_CTRL, _VCPU_TSC_OFFSET, buffer_address(value)
        )
        ioctl(self.fd, call, number, bytearray(argument))


def _check_msrs(call: str, chunk: tuple[Msr, ...], done: int) -> None:
    if done < len(chunk):
        index, value = chunk[done]
        raise HostError(f"{call}: KVM refuses MSR {index:#x} (value {value:#x})")
