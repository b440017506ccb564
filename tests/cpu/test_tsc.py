"""The guest's TSC after a restore, against a model of two hosts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot.image import Entry
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.clock import CLOCK_HOST_TSC, CLOCK_REALTIME, ClockData
from vmmd.cpu.msrs import MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE
from vmmd.cpu.topology import Topology
from vmmd.cpu.tsc import deadline, offset_after

if TYPE_CHECKING:
    from vmmd.cpu.state import VcpuState

KHZ = 2_500_000
TOLD = CLOCK_HOST_TSC | CLOCK_REALTIME
BASE = boot_vcpu(Topology(0, 1), (), Entry("linux64", 0x100000, 0x7000))
BASE = dataclasses.replace(BASE, tsc_khz=KHZ, tsc_offset=7, msrs=((MSR_IA32_TSC, 107),))
SAVED = ClockData(clock=1, flags=TOLD, host_tsc=100)
TSC = st.integers(0, 1 << 62)


@given(
    host_tsc=TSC,
    guest_tsc=TSC,
    read_before=st.integers(0, KHZ),
    new_host_tsc=TSC,
    clock=st.integers(0, 1 << 60),
    passed_ns=st.integers(0, 10**15),
)
def test_the_tsc_goes_on_by_what_the_clock_did(
    host_tsc: int,
    guest_tsc: int,
    read_before: int,
    new_host_tsc: int,
    clock: int,
    passed_ns: int,
) -> None:
    offset = (guest_tsc + read_before - host_tsc) % 2**64
    msrs = ((MSR_IA32_TSC, guest_tsc),)
    state = dataclasses.replace(BASE, tsc_offset=offset, msrs=msrs)
    saved = ClockData(clock=clock, flags=TOLD, host_tsc=host_tsc)
    now = ClockData(clock=clock + passed_ns, flags=TOLD, host_tsc=new_host_tsc)
    new = offset_after(state, saved, now)
    assert new is not None
    guest_now = (new_host_tsc + new) % 2**64
    assert guest_now == guest_tsc + read_before + passed_ns * KHZ // 10**6


@given(skew=st.integers(0, 2**64 - 1), passed_ns=st.integers(0, 10**12))
def test_vcpus_keep_their_distance(skew: int, passed_ns: int) -> None:
    now = dataclasses.replace(SAVED, clock=1 + passed_ns, host_tsc=5_000_000)
    other = dataclasses.replace(
        BASE,
        tsc_offset=(7 + skew) % 2**64,
        msrs=((MSR_IA32_TSC, (107 + skew) % 2**64),),
    )
    offsets = [offset_after(state, SAVED, now) for state in (BASE, other)]
    assert None not in offsets
    assert ((offsets[1] or 0) - (offsets[0] or 0)) % 2**64 == skew


@pytest.mark.parametrize(
    ("state", "saved", "now"),
    [
        (dataclasses.replace(BASE, tsc_offset=None), SAVED, SAVED),
        (dataclasses.replace(BASE, tsc_khz=None), SAVED, SAVED),
        (dataclasses.replace(BASE, msrs=()), SAVED, SAVED),
        (BASE, dataclasses.replace(SAVED, flags=CLOCK_REALTIME), SAVED),
        (BASE, SAVED, dataclasses.replace(SAVED, flags=0)),
        # An offset that does not explain the TSC: it has no effect there.
        (dataclasses.replace(BASE, tsc_offset=2**60), SAVED, SAVED),
        (dataclasses.replace(BASE, tsc_offset=2**64 - 2**60), SAVED, SAVED),
    ],
)
def test_otherwise_the_msr_stands(
    state: VcpuState, saved: ClockData, now: ClockData
) -> None:
    assert offset_after(state, saved, now) is None


def test_the_deadline_alone_is_set_again() -> None:
    msrs = ((MSR_IA32_TSC, 5), (0x174, 1), (MSR_IA32_TSC_DEADLINE, 9))
    state = dataclasses.replace(BASE, msrs=msrs)
    assert deadline(state) == ((MSR_IA32_TSC_DEADLINE, 9),)
    assert deadline(BASE) == ()
