"""All that KVM keeps of a VM beside its vCPUs and memory."""

from __future__ import annotations

from vmmd.cpu.clock import ClockData
from vmmd.cpu.irqchip import IoapicState, PicState
from vmmd.cpu.pit import PitState
from vmmd.state.record import record


@record("vm", 1)
class VmState:
    """The VM's own state, in the order in which it is set."""

    pitstate: PitState
    clock: ClockData
    pic_master: PicState
    pic_slave: PicState
    ioapic: IoapicState
