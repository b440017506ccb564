"""Exits as values: what a vCPU stopped for, and how a VM ends.

``vmmd/loop/vcpu.c`` leaves the kernel's ``struct kvm_run`` as it was when the
last exit came; :func:`decode_end` reads it. Names and numbers are KVM's
(``linux/kvm.h``).
"""

from __future__ import annotations

import enum
import errno
import struct

from vmmd.frozen import dataclass

RUN_HEAD_BYTES = 0x20 + 256
"""How much of ``struct kvm_run`` :func:`decode_end` wants: up to its union's end."""

_EXIT_REASON = struct.Struct("<I")
_EXIT_REASON_AT = 8
_UNION_AT = 0x20


class ExitReason(enum.IntEnum):
    """``KVM_EXIT_*`` of x86."""

    UNKNOWN = 0
    EXCEPTION = 1
    IO = 2
    HYPERCALL = 3
    DEBUG = 4
    HLT = 5
    MMIO = 6
    IRQ_WINDOW_OPEN = 7
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    SET_TPR = 11
    TPR_ACCESS = 12
    NMI = 16
    INTERNAL_ERROR = 17
    SYSTEM_EVENT = 24
    IOAPIC_EOI = 26
    HYPERV = 27
    X86_RDMSR = 29
    X86_WRMSR = 30
    DIRTY_RING_FULL = 31
    X86_BUS_LOCK = 33
    XEN = 34
    NOTIFY = 37


class SystemEvent(enum.IntEnum):
    """``KVM_SYSTEM_EVENT_*``."""

    SHUTDOWN = 1
    RESET = 2
    CRASH = 3
    WAKEUP = 4
    SUSPEND = 5
    SEV_TERM = 6


class InternalError(enum.IntEnum):
    """``KVM_INTERNAL_ERROR_*``: the suberror of INTERNAL_ERROR."""

    EMULATION = 1
    SIMUL_EX = 2
    DELIVERY_EV = 3
    UNEXPECTED_EXIT_REASON = 4


class EndReason(enum.Enum):
    """Why a VM ended by itself; the value is how it is called in the log."""

    POWER_OFF = "power off"
    I8042_RESET = "reset by the keyboard controller"
    ACPI_RESET = "reset by the ACPI reset register"
    TRIPLE_FAULT = "triple fault"
    SYSTEM_EVENT = "system event"
    INTERNAL_ERROR = "KVM internal error"
    FAIL_ENTRY = "failed VM entry"
    UNKNOWN_EXIT = "unknown exit"
    RUN_FAILED = "KVM_RUN failed"


_ORDERLY = (EndReason.POWER_OFF, EndReason.I8042_RESET, EndReason.ACPI_RESET)
_DEATHS = (
    EndReason.INTERNAL_ERROR,
    EndReason.FAIL_ENTRY,
    EndReason.UNKNOWN_EXIT,
    EndReason.RUN_FAILED,
)


_FIRECRACKER_TEXTS = {
    EndReason.TRIPLE_FAULT: "Unexpected exit reason on vcpu run: Shutdown",
    EndReason.INTERNAL_ERROR: "Received KVM_EXIT_INTERNAL_ERROR signal",
    EndReason.FAIL_ENTRY: "Received KVM_EXIT_FAIL_ENTRY signal",
}


@dataclass(frozen=True, slots=True)
class VmEnd:
    """The end of a VM: of which vCPU, with the numbers that came along.

    ``detail`` is the system event's type, the internal error's suberror, the
    hardware's entry failure reason, the unknown exit's reason or KVM_RUN's
    errno; 0 else. ``data`` are the words that KVM gave with it.
    """

    reason: EndReason
    vcpu: int = 0
    detail: int = 0
    data: tuple[int, ...] = ()

    @property
    def firecracker_text(self) -> str | None:
        """What Firecracker logs of it, if it does."""
        return _FIRECRACKER_TEXTS.get(self.reason)

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        if self.reason is EndReason.SYSTEM_EVENT:
            orderly = (SystemEvent.SHUTDOWN, SystemEvent.RESET)
            return 0 if self.detail in orderly else 1
        return 0 if self.reason in _ORDERLY else 1

    @property
    def needs_report(self) -> bool:
        """Whether a death report is due: nobody asked for this end."""
        return self.reason in _DEATHS

    def __str__(self) -> str:
        """One line for the log."""
        detail = _detail_name(self.reason, self.detail)
        words = ", ".join(f"{word:#x}" for word in self.data)
        return (
            f"{self.reason.value} of vCPU {self.vcpu}"
            + (f": {detail}" if detail else "")
            + (f" (data {words})" if words else "")
        )


@dataclass(frozen=True, slots=True)
class ExitNote:
    """One exit of the recent past: ``count`` items of ``size`` bytes.

    ``value`` is the first item: of a write what the guest wrote, of a read
    what stood in the run page before it was answered.
    """

    reason: int
    address: int
    size: int
    count: int
    write: bool
    value: int

    def __str__(self) -> str:
        """One line of a death report."""
        name = _name(ExitReason, self.reason)
        if self.reason not in (ExitReason.IO, ExitReason.MMIO):
            return name
        times = f" x{self.count}" if self.count > 1 else ""
        access = f"{name} {self.address:#x} {self.size * 8} bit{times}"
        return f"{access} write {self.value:#x}" if self.write else f"{access} read"


def decode_end(run: bytes, vcpu: int, run_errno: int) -> VmEnd:
    """The end that ``run`` (the first RUN_HEAD_BYTES of kvm_run) tells of.

    ``run_errno`` is what KVM_RUN failed with, 0 if it returned an exit.
    """
    if run_errno:
        return VmEnd(EndReason.RUN_FAILED, vcpu, run_errno)
    (reason,) = _EXIT_REASON.unpack_from(run, _EXIT_REASON_AT)
    match reason:
        case ExitReason.SHUTDOWN:
            return VmEnd(EndReason.TRIPLE_FAULT, vcpu)
        case ExitReason.SYSTEM_EVENT:
            return VmEnd(EndReason.SYSTEM_EVENT, vcpu, *_counted(run, 16))
        case ExitReason.INTERNAL_ERROR:
            return VmEnd(EndReason.INTERNAL_ERROR, vcpu, *_counted(run, 16))
        case ExitReason.FAIL_ENTRY:
            why, cpu = struct.unpack_from("<QI", run, _UNION_AT)
            return VmEnd(EndReason.FAIL_ENTRY, vcpu, why, (cpu,))
        case ExitReason.UNKNOWN:
            (hardware,) = struct.unpack_from("<Q", run, _UNION_AT)
            return VmEnd(EndReason.UNKNOWN_EXIT, vcpu, reason, (hardware,))
        case _:
            return VmEnd(EndReason.UNKNOWN_EXIT, vcpu, reason)


def _counted(run: bytes, most: int) -> tuple[int, tuple[int, ...]]:
    """``u32 number, u32 ndata, u64 data[16]``: the number and its data."""
    number, count = struct.unpack_from("<II", run, _UNION_AT)
    words = struct.unpack_from(f"<{min(count, most)}Q", run, _UNION_AT + 8)
    return number, words


def _detail_name(reason: EndReason, detail: int) -> str:
    match reason:
        case EndReason.SYSTEM_EVENT:
            return _name(SystemEvent, detail)
        case EndReason.INTERNAL_ERROR:
            return _name(InternalError, detail)
        case EndReason.UNKNOWN_EXIT:
            return _name(ExitReason, detail)
        case EndReason.FAIL_ENTRY:
            return f"hardware reason {detail:#x}"
        case EndReason.RUN_FAILED:
            return errno.errorcode.get(detail, str(detail))
        case _:
            return ""


def _name(kind: type[enum.IntEnum], number: int) -> str:
    try:
        return kind(number).name
    except ValueError:
        return str(number)
