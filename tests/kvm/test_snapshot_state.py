"""A running guest's state read and set into another VM, in which it goes on."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.helpers.flat import flat_vm
from tests.helpers.vcpus import SPIN
from vmmd.errors import SnapshotError
from vmmd.loop.host_fit import check_host
from vmmd.loop.kvm import Kvm
from vmmd.loop.vcpu_state import read_state, set_state, tell_stopped
from vmmd.loop.vm_state import read_vm_state, set_vm_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.flat import FlatVm
    from vmmd.cpu.state import VcpuState

TIME = (0x10, 0x6E0)
"""MSRs that go on by themselves: the TSC, and a deadline that follows it."""


@pytest.fixture(scope="module")
def msr_list() -> tuple[int, ...]:
    with closing(Kvm.open()) as kvm:
        return kvm.msr_index_list()


def two_vcpus() -> FlatVm:
    flat = flat_vm([SPIN, SPIN])
    flat.vm.create_pit2()
    return flat


@pytest.fixture
def flats() -> Iterator[tuple[FlatVm, FlatVm]]:
    """Two VMs of two vCPUs that never run."""
    with closing(two_vcpus()) as one, closing(two_vcpus()) as other:
        yield one, other


def settled(state: VcpuState) -> dict[str, object]:
    """The state without what moves by itself."""
    values: dict[str, object] = {
        name: getattr(state, name) for name in state.__dataclass_fields__
    }
    values["msrs"] = [msr for msr in state.msrs if msr[0] not in TIME]
    return values


def test_what_is_set_is_read_again(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    one, other = flats
    states = [read_state(vcpu, msr_list) for vcpu in one.vcpus]
    for vcpu, state in zip(other.vcpus, states, strict=True):
        set_state(vcpu, state)
    again = [read_state(vcpu, msr_list) for vcpu in other.vcpus]
    assert [settled(state) for state in again] == [settled(state) for state in states]
    assert all(state.tsc_khz for state in states)


def test_the_host_fits_its_own_guests(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    states = [read_state(vcpu, msr_list) for vcpu in flats[0].vcpus]
    with closing(Kvm.open()) as kvm:
        check_host(kvm, states, "x86_64")
        edx = 1 << 31  # "pbe": KVM offers it to nobody
        *_, leaf = (entry for entry in states[1].cpuid if entry.function == 1)
        more = dataclasses.replace(leaf, edx=leaf.edx | edx)
        cpuid = tuple(more if entry is leaf else entry for entry in states[1].cpuid)
        states[1] = dataclasses.replace(states[1], cpuid=cpuid)
        with pytest.raises(SnapshotError, match="does not offer: pbe:"):
            check_host(kvm, states, "x86_64")


def test_a_tsc_of_another_frequency_is_scaled_or_refused(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    one, other = flats[0].vcpus[0], flats[1].vcpus[0]
    state = read_state(one, msr_list)
    assert state.tsc_khz
    near = dataclasses.replace(state, tsc_khz=state.tsc_khz + 1)
    set_state(other, near)
    assert other.get_tsc_khz() == state.tsc_khz
    far = dataclasses.replace(state, tsc_khz=state.tsc_khz * 9 // 10)
    if other.scales_tsc:
        set_state(other, far)
        assert other.get_tsc_khz() == far.tsc_khz
    else:
        with pytest.raises(SnapshotError, match="Could not set TSC scaling"):
            set_state(other, far)


def test_chips_are_set_as_they_were(flats: tuple[FlatVm, FlatVm]) -> None:
    one, other = flats
    one.vm.irq_line(6, 1)
    state = read_vm_state(one.vm)
    assert state.pic_master.irr == 1 << 6
    set_vm_state(other.vm, state)
    again = read_vm_state(other.vm)
    assert again.pic_master == state.pic_master
    assert again.pic_slave == state.pic_slave
    assert again.ioapic == state.ioapic
    # KVM counts anew from when it is set; all else of the timer is the same.
    for channel, before in zip(
        again.pitstate.channels, state.pitstate.channels, strict=True
    ):
        assert (channel.count, channel.mode) == (before.count, before.mode)
        assert (channel.gate, channel.rw_mode) == (before.gate, before.rw_mode)
    assert 0 <= again.clock.clock - state.clock.clock < 10**9


def test_the_wall_clock_is_followed_only_where_it_was_saved(
    flats: tuple[FlatVm, FlatVm],
) -> None:
    one, other = flats
    state = read_vm_state(one.vm)
    clock = dataclasses.replace(state.clock, flags=0)
    unsaid = dataclasses.replace(state, clock=clock)
    with pytest.raises(SnapshotError, match="clock_realtime requested"):
        set_vm_state(other.vm, unsaid, clock_realtime=True)
    set_vm_state(one.vm, unsaid)  # only from here on KVM says the time
    said = read_vm_state(one.vm)
    set_vm_state(other.vm, said, clock_realtime=True)
    now = read_vm_state(other.vm).clock
    passed = now.realtime - said.clock.realtime
    assert abs(now.clock - said.clock.clock - passed) < 10_000_000  # ns


def test_a_guest_without_a_kvmclock_is_not_told(
    flats: tuple[FlatVm, FlatVm],
) -> None:
    assert not tell_stopped(flats[0].vcpus[0])
