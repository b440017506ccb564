"""Reads and sets what KVM keeps of a VM: timer, clock, interrupt controllers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vmmd.cpu.clock import CLOCK_REALTIME, REALTIME_UNKNOWN, ClockData
from vmmd.cpu.irqchip import pack_irqchip, unpack_ioapic, unpack_pic
from vmmd.cpu.pit import PitState
from vmmd.cpu.tsc import deadline, offset_after
from vmmd.cpu.vm_state import VmState
from vmmd.errors import SnapshotError
from vmmd.loop.kvm import Cap, IrqChip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmmd.cpu.state import VcpuState
    from vmmd.loop.kvm import Vm
    from vmmd.loop.vcpufd import VcpuFd


def read_vm_state(vm: Vm) -> VmState:
    """Read everything: after the devices are quiet, whose last interrupts it has."""
    return VmState(
        pitstate=PitState.unpack(vm.get_pit2()),
        clock=ClockData.unpack(vm.get_clock()).dated(time.time_ns()),
        pic_master=unpack_pic(vm.get_irqchip(IrqChip.PIC_MASTER)),
        pic_slave=unpack_pic(vm.get_irqchip(IrqChip.PIC_SLAVE)),
        ioapic=unpack_ioapic(vm.get_irqchip(IrqChip.IOAPIC)),
    )


def set_vm_state(vm: Vm, state: VmState, *, clock_realtime: bool = False) -> None:
    """Set everything: before any interrupt of this VM, which it would overwrite.

    ``clock_realtime`` as in :meth:`vmmd.cpu.clock.ClockData.to_set`. SnapshotError
    from there, or if a value does not fit its place, comes before anything is
    set. HostError names the call.
    """
    try:
        pit = state.pitstate.pack()
        clock = state.clock.to_set(clock_realtime=clock_realtime).pack()
        chips = [
            pack_irqchip(IrqChip.PIC_MASTER, state.pic_master),
            pack_irqchip(IrqChip.PIC_SLAVE, state.pic_slave),
            pack_irqchip(IrqChip.IOAPIC, state.ioapic),
        ]
    except ValueError as error:
        raise SnapshotError(f"vm: {error}") from error
    if clock_realtime and not vm.check_extension(Cap.ADJUST_CLOCK) & CLOCK_REALTIME:
        raise SnapshotError(REALTIME_UNKNOWN)
    vm.set_pit2(pit)
    vm.set_clock(clock)
    for chip in chips:
        vm.set_irqchip(chip)


def set_tsc_offsets(
    vm: Vm, vcpus: Iterable[tuple[VcpuFd, VcpuState]], saved: ClockData
) -> bool:
    """Bring the vCPUs' TSCs in step with the clock that ``set_vm_state`` has set.

    ``saved`` is that clock as it was saved, ``vcpus`` have their state already.
    False where this KVM has no offsets, or they have no effect, or the TSC is
    scaled: the TSC then goes on as its MSR says. HostError names the call.
    """
    now = ClockData.unpack(vm.get_clock())
    return all(_set_tsc_offset(vcpu, state, saved, now) for vcpu, state in vcpus)


def _set_tsc_offset(
    vcpu: VcpuFd, state: VcpuState, saved: ClockData, now: ClockData
) -> bool:
    offset = offset_after(state, saved, now)
    if offset is None or vcpu.tsc_scaled or not vcpu.has_tsc_offset():
        return False
    vcpu.set_tsc_offset(offset)
    if vcpu.get_tsc_offset() != offset:
        return False
    vcpu.set_msrs(deadline(state))
    return True
