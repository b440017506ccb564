"""All that one vCPU is: what a boot makes, a snapshot holds and a load sets."""

from __future__ import annotations

from vmmd.cpu.cpuid import CpuidEntry
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Xcrs, Xsave
from vmmd.cpu.lapic import Lapic
from vmmd.cpu.registers import DebugRegs, MpState, Regs, Sregs
from vmmd.state.record import record


@record("vcpu", 1)
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
    msrs: tuple[tuple[int, int], ...]
    vcpu_events: VcpuEvents
    tsc_khz: int | None = None
    tsc_offset: int | None = None
