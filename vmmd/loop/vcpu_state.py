"""Sets and reads all state of one vCPU, in the order that KVM wants.

CPUID decides what the rest may be; sregs have the LAPIC's base; the TSC comes
before its deadline (the records keep MSRs in setting order); events last, since
setting registers clears what is pending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cpu.cpuid import pack_cpuid
from vmmd.loop.vcpufd import VcpuPart

if TYPE_CHECKING:
    from vmmd.cpu.state import VcpuState
    from vmmd.loop.vcpufd import VcpuFd


def set_state(vcpu: VcpuFd, state: VcpuState) -> None:
    """Set everything. HostError names the call, and for an MSR which one."""
    vcpu.set_cpuid2(pack_cpuid(state.cpuid))
    for part, raw in (
        (VcpuPart.MP_STATE, state.mp_state.pack()),
        (VcpuPart.REGS, state.regs.pack()),
        (VcpuPart.SREGS, state.sregs.pack()),
        (VcpuPart.XSAVE, state.xsave.pack(vcpu.xsave_size)),
        (VcpuPart.XCRS, state.xcrs.pack()),
        (VcpuPart.DEBUGREGS, state.debug_regs.pack()),
        (VcpuPart.LAPIC, state.lapic.pack()),
    ):
        vcpu.set(part, raw)
    vcpu.set_msrs(state.msrs)
    vcpu.set(VcpuPart.VCPU_EVENTS, state.vcpu_events.pack())
