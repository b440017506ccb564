"""The guest's TSC after a restore: in step with its kvmclock, on every vCPU.

Setting the TSC by its MSR leaves it to KVM to guess whether two vCPUs were meant
to agree, and does not know of the time between the vCPUs' state and the clock's.
The offset attribute is exact: this is the procedure of the kernel's
Documentation/virt/kvm/devices/vcpu.rst, section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cpu.clock import CLOCK_HOST_TSC
from vmmd.cpu.msrs import MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE

if TYPE_CHECKING:
    from vmmd.cpu.clock import ClockData
    from vmmd.cpu.msrs import Msr
    from vmmd.cpu.state import VcpuState

_MODULUS = 1 << 64
_BELIEVED_S = 1


def offset_after(state: VcpuState, saved: ClockData, now: ClockData) -> int | None:
    """The TSC offset to set, modulo 2^64; None: leave it as the MSR has set it.

    ``saved`` is the clock that was saved with ``state``, ``now`` what KVM tells
    after that was set: the guest's TSC shall have gone on by what its clock has.
    None where KVM has not told the host's TSC with the clock, or where the saved
    offset does not explain the saved TSC, as where KVM has it for show. The
    host's TSC must run at the guest's frequency, unscaled.
    """
    tsc = dict(state.msrs).get(MSR_IA32_TSC)
    if state.tsc_offset is None or not state.tsc_khz or tsc is None:
        return None
    if not saved.flags & now.flags & CLOCK_HOST_TSC:
        return None
    since = (saved.host_tsc + state.tsc_offset - tsc) % _MODULUS
    believed = _BELIEVED_S * state.tsc_khz * 1000
    if believed < since < _MODULUS - believed:
        return None
    passed = (now.clock - saved.clock) * state.tsc_khz // 1_000_000
    return (state.tsc_offset + saved.host_tsc - now.host_tsc + passed) % _MODULUS


def deadline(state: VcpuState) -> tuple[Msr, ...]:
    """The TSC deadline, to be set again: a timer is armed by the TSC of its time."""
    return tuple(msr for msr in state.msrs if msr[0] == MSR_IA32_TSC_DEADLINE)
