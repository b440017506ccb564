"""All that one vCPU is: what a boot makes, a snapshot holds and a load sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cpu.cpuid import CpuidEntry
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Xcrs, Xsave
from vmmd.cpu.lapic import Lapic
from vmmd.cpu.registers import DebugRegs, MpState, Regs, Sregs
from vmmd.state.record import (
    SERIALIZATION,
    U32,
    Loss,
    Refusal,
    downgrade,
    record,
    upgrade,
    with_fields,
    without,
)

if TYPE_CHECKING:
    from vmmd.state.record import Fields, Notes

_MSRS_AT_ONCE = 256  # KVM_MAX_MSR_ENTRIES: what one chunk of Firecracker's holds


@record("vcpu", 3)
class VcpuState:
    """One vCPU's state, in the order in which it is set.

    CPUID first, since it decides what the rest may be; LAPIC after sregs (its
    base) and before MSRs (the deadline timer); events last, since setting the
    registers clears what is pending. ``msrs`` are in setting order already.
    ``tsc_khz`` is None where KVM does not say, or the host's is meant.
    ``tsc_offset``, modulo 2^64, is the guest's TSC less the host's that it was
    read on; None where KVM does not say, or at a boot.
    """

    cpuid: tuple[CpuidEntry, ...]
    mp_state: MpState
    regs: Regs
    sregs: Sregs
    xsave: Xsave
    xcrs: Xcrs
    debug_regs: DebugRegs
    lapic: Lapic
    msrs: tuple[tuple[U32, int], ...]
    vcpu_events: VcpuEvents
    tsc_khz: U32 | None = None
    tsc_offset: int | None = None


@downgrade(VcpuState, 3)
def _msrs_in_one_chunk(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    """Version 2 held as many as KVM takes at once, and at least one."""
    count = len(fields["msrs"])
    if 0 < count <= _MSRS_AT_ONCE:
        return fields, ()
    text = (
        "Cannot serialize MSRs. The uVM state needs to save\n                 more"
        " MSRs than the target snapshot version supports."
        if count
        else "Cannot serialize MSRs because the MSR list is empty"
    )
    return fields, (Refusal(("msrs",), text, SERIALIZATION),)


@upgrade(VcpuState, 2)
def _msrs_in_chunks(fields: Fields) -> tuple[Fields, Notes]:
    return fields, ()


@downgrade(VcpuState, 2)
def _without_tsc_khz(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    khz = fields["tsc_khz"]
    what = "not available" if khz is None else f"{khz}KHz not included in snapshot"
    loss = Loss(("tsc_khz",), f"Saving to older snapshot version, TSC freq {what}.")
    return without(fields, "tsc_khz"), (loss,)


@upgrade(VcpuState, 1)
def _with_tsc_khz(fields: Fields) -> tuple[Fields, Notes]:
    note = "CPU TSC freq not found in snapshot"
    return with_fields(fields, {"tsc_khz": None}), (note,)
