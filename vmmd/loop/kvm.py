"""KVM: every ioctl vmmd uses, on raw structs, by the standard library alone.

State goes in and out as the kernel's own bytes; ``vmmd.cpu.registers`` gives
them names. Layouts and numbers are those of ``linux/kvm.h`` on x86-64. A call
that fails is a :class:`HostError` naming the call, the errno and, where one is
known, the way out.
"""

from __future__ import annotations

import enum
import os
import struct
from functools import cached_property
from typing import TYPE_CHECKING

from vmmd._native import lib
from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.ioctl import (
    OwnedFd,
    buffer_address,
    get_cpuid,
    get_struct,
    host_error,
    ioctl,
)
from vmmd.loop.vcpufd import XSAVE_BYTES, VcpuFd

if TYPE_CHECKING:
    from collections.abc import Sequence

API_VERSION = 12

_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_GET_MSR_INDEX_LIST = 0xC004AE02
_CHECK_EXTENSION = 0xAE03
_GET_VCPU_MMAP_SIZE = 0xAE04
_GET_SUPPORTED_CPUID = 0xC008AE05
_CREATE_VCPU = 0xAE41
_GET_DIRTY_LOG = 0x4010AE42
_SET_USER_MEMORY_REGION = 0x4020AE46
_SET_IDENTITY_MAP_ADDR = 0x4008AE48
_CREATE_IRQCHIP = 0xAE60
_IRQ_LINE = 0x4008AE61
_GET_IRQCHIP = 0xC208AE62
_SET_IRQCHIP = 0x8208AE63
_SET_GSI_ROUTING = 0x4008AE6A
_IRQFD = 0x4020AE76
_CREATE_PIT2 = 0x4040AE77
_IOEVENTFD = 0x4040AE79
_SET_CLOCK = 0x4030AE7B
_GET_CLOCK = 0x8030AE7C
_GET_PIT2 = 0x8070AE9F
_SET_PIT2 = 0x4070AEA0

_PIT_SPEAKER_DUMMY = 1
_IOEVENTFD_DATAMATCH = 1
_IOEVENTFD_PIO = 2
_DEASSIGN_IOEVENTFD = 4
_DEASSIGN_IRQFD = 1
_ROUTING_IRQCHIP = 1

MEM_LOG_DIRTY_PAGES = 1
MEM_READONLY = 2


class Cap(enum.IntEnum):
    """``KVM_CAP_*`` that vmmd asks about."""

    IRQCHIP = 0
    USER_MEMORY = 3
    SET_TSS_ADDR = 4
    EXT_CPUID = 7
    NR_VCPUS = 9
    NR_MEMSLOTS = 10
    MP_STATE = 14
    IRQ_ROUTING = 25
    IRQFD = 32
    PIT2 = 33
    PIT_STATE2 = 35
    IOEVENTFD = 36
    SET_IDENTITY_MAP_ADDR = 37
    ADJUST_CLOCK = 39
    VCPU_EVENTS = 41
    DEBUGREGS = 50
    XSAVE = 55
    XCRS = 56
    TSC_CONTROL = 60
    GET_TSC_KHZ = 61
    MAX_VCPUS = 66
    KVMCLOCK_CTRL = 76
    VCPU_ATTRIBUTES = 127
    IMMEDIATE_EXIT = 136
    XSAVE2 = 208


REQUIRED = (
    Cap.IRQCHIP,
    Cap.IOEVENTFD,
    Cap.IRQFD,
    Cap.USER_MEMORY,
    Cap.SET_TSS_ADDR,
    Cap.PIT2,
    Cap.PIT_STATE2,
    Cap.ADJUST_CLOCK,
    Cap.DEBUGREGS,
    Cap.MP_STATE,
    Cap.VCPU_EVENTS,
    Cap.XCRS,
    Cap.XSAVE,
    Cap.EXT_CPUID,
    Cap.IMMEDIATE_EXIT,
)
"""What Firecracker asks for, and IMMEDIATE_EXIT, on which every pause stands."""


class IrqChip(enum.IntEnum):
    """``KVM_IRQCHIP_*``."""

    PIC_MASTER = 0
    PIC_SLAVE = 1
    IOAPIC = 2


@dataclass(frozen=True, slots=True)
class IrqRoute:
    """GSI ``gsi`` goes to ``pin`` of ``chip``."""

    gsi: int
    chip: IrqChip
    pin: int


class Kvm(OwnedFd):
    """``/dev/kvm``."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._ahead: Vm | None = None

    @classmethod
    def open(cls, path: str = "/dev/kvm") -> Kvm:
        """Open and check it: API version 12 and every capability of REQUIRED.

        HostError, with the way out, when something is missing.
        """
        kvm = cls(_open(path))
        try:
            kvm.check()
        except HostError:
            kvm.close()
            raise
        return kvm

    def check(self) -> None:
        """HostError if the API version or a required capability is not there."""
        version = self.api_version()
        if version != API_VERSION:
            raise HostError(
                f"KVM API version {version}, not {API_VERSION}: this kernel's KVM"
                " cannot be used; run a mainline kernel"
            )
        missing = [cap.name for cap in REQUIRED if not self.check_extension(cap)]
        if missing:
            raise HostError(
                f"this KVM lacks {', '.join(missing)}: a kernel of 4.14 or newer"
                " with the in-kernel interrupt controller has them"
            )

    def api_version(self) -> int:
        """KVM_GET_API_VERSION."""
        return ioctl(self.fd, "KVM_GET_API_VERSION", _GET_API_VERSION)

    def check_extension(self, cap: Cap) -> int:
        """KVM_CHECK_EXTENSION: 0 where it is missing."""
        return ioctl(self.fd, "KVM_CHECK_EXTENSION", _CHECK_EXTENSION, int(cap))

    def supported_cpuid(self) -> bytes:
        """KVM_GET_SUPPORTED_CPUID: the entries, 40 bytes each (kvm_cpuid_entry2)."""
        return get_cpuid(self.fd, "KVM_GET_SUPPORTED_CPUID", _GET_SUPPORTED_CPUID)

    def msr_index_list(self) -> tuple[int, ...]:
        """KVM_GET_MSR_INDEX_LIST: the MSRs that a guest's state has here."""
        buffer = bytearray(4 * 1025)
        struct.pack_into("<I", buffer, 0, 1024)
        ioctl(self.fd, "KVM_GET_MSR_INDEX_LIST", _GET_MSR_INDEX_LIST, buffer)
        (count,) = struct.unpack_from("<I", buffer)
        return struct.unpack_from(f"<{count}I", buffer, 4)

    def make_ahead(self) -> None:
        """Make the VM that ``create_vm`` will give, unless it was made."""
        self._ahead = self._ahead or self._make_vm()

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM, or the VM that was made ahead."""
        made, self._ahead = self._ahead, None
        return made or self._make_vm()

    def close(self) -> None:
        """Close it, and a VM that was made ahead and not taken."""
        if self._ahead is not None:
            self._ahead.close()
        super().close()

    def _make_vm(self) -> Vm:
        fd = ioctl(self.fd, "KVM_CREATE_VM", _CREATE_VM)
        run_size = ioctl(self.fd, "KVM_GET_VCPU_MMAP_SIZE", _GET_VCPU_MMAP_SIZE)
        return Vm(fd, run_size)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise HostError(
            f"{path}: there is no KVM here; `sudo modprobe kvm-intel` (or kvm-amd),"
            " enable virtualization in the firmware, or nested virtualization"
            " where this is a virtual machine"
        ) from error
    except PermissionError as error:
        raise HostError(
            f"{path}: no permission; `sudo usermod -aG kvm $USER`, then log in again"
        ) from error
    except OSError as error:
        raise host_error(f"open {path}", error) from error


class Vm(OwnedFd):
    """A VM. Order of set-up: addresses, memory slots, irqchip and PIT, vCPUs,
    ioeventfds, irqfds: a slot set after the others costs 7 ms on some hosts.
    """

    def __init__(self, fd: int, run_size: int) -> None:
        super().__init__(fd)
        self._run_size = run_size

    def check_extension(self, cap: Cap) -> int:
        """KVM_CHECK_EXTENSION of this VM: 0 where it is missing."""
        return ioctl(self.fd, "KVM_CHECK_EXTENSION", _CHECK_EXTENSION, int(cap))

    def set_tss_addr(self, address: int) -> None:
        """KVM_SET_TSS_ADDR: three pages below 4 GiB that the guest does not use."""
        if number := lib.kvm_set_tss_addr(self.fd, address):
            raise host_error("KVM_SET_TSS_ADDR", OSError(number, ""))

    def set_identity_map_addr(self, address: int) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR: one page; before the first vCPU."""
        argument = bytearray(struct.pack("<Q", address))
        ioctl(self.fd, "KVM_SET_IDENTITY_MAP_ADDR", _SET_IDENTITY_MAP_ADDR, argument)

    def set_user_memory_region(
        self, slot: int, gpa: int, size: int, host_address: int, flags: int = 0
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION; size 0 deletes the slot."""
        region = struct.pack("<IIQQQ", slot, flags, gpa, size, host_address)
        call = "KVM_SET_USER_MEMORY_REGION"
        ioctl(self.fd, call, _SET_USER_MEMORY_REGION, bytearray(region))

    def get_dirty_log(self, slot: int, size: int) -> bytes:
        """KVM_GET_DIRTY_LOG of a slot of ``size`` bytes, and clear it.

        A bit per 4 KiB page, LSB first, in whole 64-bit words.
        """
        bitmap = bytearray((size // 4096 + 63) // 64 * 8)
        argument = bytearray(struct.pack("<IIQ", slot, 0, buffer_address(bitmap)))
        ioctl(self.fd, "KVM_GET_DIRTY_LOG", _GET_DIRTY_LOG, argument)
        return bytes(bitmap)

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: PICs, IOAPIC, LAPICs, and the default routing."""
        ioctl(self.fd, "KVM_CREATE_IRQCHIP", _CREATE_IRQCHIP)

    def create_pit2(self) -> None:
        """KVM_CREATE_PIT2, with port 0x61 answered by KVM (SPEAKER_DUMMY)."""
        config = bytearray(struct.pack("<I60x", _PIT_SPEAKER_DUMMY))
        ioctl(self.fd, "KVM_CREATE_PIT2", _CREATE_PIT2, config)

    def set_gsi_routing(self, routes: Sequence[IrqRoute]) -> None:
        """KVM_SET_GSI_ROUTING: replaces all routes; one call for them all."""
        table = bytearray(struct.pack("<II", len(routes), 0))
        for route in routes:
            table += struct.pack("<IIII", route.gsi, _ROUTING_IRQCHIP, 0, 0)
            table += struct.pack("<II24x", route.chip, route.pin)
        ioctl(self.fd, "KVM_SET_GSI_ROUTING", _SET_GSI_ROUTING, table)

    def irq_line(self, gsi: int, level: int) -> None:
        """KVM_IRQ_LINE: set a line by hand."""
        line = bytearray(struct.pack("<II", gsi, level))
        ioctl(self.fd, "KVM_IRQ_LINE", _IRQ_LINE, line)

    def irqfd(self, gsi: int, fd: int, *, assign: bool = True) -> None:
        """KVM_IRQFD: each signal of eventfd ``fd`` is an edge on ``gsi``."""
        flags = 0 if assign else _DEASSIGN_IRQFD
        argument = bytearray(struct.pack("<III20x", fd, gsi, flags))
        ioctl(self.fd, "KVM_IRQFD", _IRQFD, argument)

    def ioeventfd(
        self,
        address: int,
        fd: int,
        size: int = 4,
        datamatch: int | None = None,
        *,
        pio: bool = False,
        assign: bool = True,
    ) -> None:
        """KVM_IOEVENTFD: a write of ``size`` bytes at ``address`` signals ``fd``.

        With ``datamatch`` only a write of that value does.
        """
        flags = 0 if datamatch is None else _IOEVENTFD_DATAMATCH
        flags |= _IOEVENTFD_PIO if pio else 0
        flags |= 0 if assign else _DEASSIGN_IOEVENTFD
        match_value = datamatch or 0
        argument = struct.pack("<QQIiI36x", match_value, address, size, fd, flags)
        ioctl(self.fd, "KVM_IOEVENTFD", _IOEVENTFD, bytearray(argument))

    def get_irqchip(self, chip: IrqChip) -> bytes:
        """KVM_GET_IRQCHIP: ``struct kvm_irqchip``, 520 bytes, chip_id first."""
        buffer = bytearray(struct.pack("<II512x", chip, 0))
        ioctl(self.fd, "KVM_GET_IRQCHIP", _GET_IRQCHIP, buffer)
        return bytes(buffer)

    def set_irqchip(self, raw: bytes) -> None:
        """KVM_SET_IRQCHIP of what get_irqchip gave."""
        ioctl(self.fd, "KVM_SET_IRQCHIP", _SET_IRQCHIP, bytearray(raw))

    def get_pit2(self) -> bytes:
        """KVM_GET_PIT2: ``struct kvm_pit_state2``, 112 bytes."""
        return get_struct(self.fd, "KVM_GET_PIT2", _GET_PIT2, 112)

    def set_pit2(self, raw: bytes) -> None:
        """KVM_SET_PIT2."""
        ioctl(self.fd, "KVM_SET_PIT2", _SET_PIT2, bytearray(raw))

    def get_clock(self) -> bytes:
        """KVM_GET_CLOCK: ``struct kvm_clock_data``, 48 bytes."""
        return get_struct(self.fd, "KVM_GET_CLOCK", _GET_CLOCK, 48)

    def set_clock(self, raw: bytes) -> None:
        """KVM_SET_CLOCK."""
        ioctl(self.fd, "KVM_SET_CLOCK", _SET_CLOCK, bytearray(raw))

    def create_vcpu(self, index: int) -> VcpuFd:
        """KVM_CREATE_VCPU, and map its run page."""
        fd = ioctl(self.fd, "KVM_CREATE_VCPU", _CREATE_VCPU, index)
        xsave, scales = self._vcpu_facts
        return VcpuFd(fd, index, self._run_size, xsave, scales_tsc=scales)

    @cached_property
    def _vcpu_facts(self) -> tuple[int, bool]:
        """Bytes of a vCPU's XSAVE state, and whether its TSC can be scaled."""
        xsave = max(XSAVE_BYTES, self.check_extension(Cap.XSAVE2))
        return xsave, bool(self.check_extension(Cap.TSC_CONTROL))
