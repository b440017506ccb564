"""kvmclock: what is set of what was read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.clock import (
    CLOCK_HOST_TSC,
    CLOCK_REALTIME,
    CLOCK_TSC_STABLE,
    ClockData,
)
from vmmd.errors import SnapshotError

U64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
FLAGS = st.sampled_from([0, CLOCK_TSC_STABLE, CLOCK_TSC_STABLE | CLOCK_HOST_TSC])


@given(clock=U64, realtime=U64, flags=FLAGS)
def test_the_clock_goes_on_where_it_stood(
    clock: int, realtime: int, flags: int
) -> None:
    read = ClockData(clock=clock, realtime=realtime, flags=flags | CLOCK_REALTIME)
    to_set = read.to_set(clock_realtime=False)
    assert (to_set.clock, to_set.flags) == (clock, 0)


@given(clock=U64, realtime=U64, flags=FLAGS)
def test_or_jumps_by_the_wall_clock_if_that_was_saved(
    clock: int, realtime: int, flags: int
) -> None:
    read = ClockData(clock=clock, realtime=realtime, flags=flags | CLOCK_REALTIME)
    to_set = read.to_set(clock_realtime=True)
    assert (to_set.clock, to_set.realtime) == (clock, realtime)
    assert to_set.flags == CLOCK_REALTIME
    unsaid = ClockData(clock=clock, flags=flags)
    with pytest.raises(SnapshotError, match="clock_realtime requested but not pres"):
        unsaid.to_set(clock_realtime=True)


@given(clock=U64, realtime=U64, flags=FLAGS)
def test_the_wall_time_is_there_also_where_kvm_did_not_say_it(
    clock: int, realtime: int, flags: int
) -> None:
    unsaid = ClockData(clock=clock, flags=flags, host_tsc=7)
    dated = unsaid.dated(realtime)
    assert dated == ClockData(
        clock=clock, flags=flags | CLOCK_REALTIME, realtime=realtime, host_tsc=7
    )
    assert dated.dated(1) is dated
