"""ACPI's sleep registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.chips.power import Power, PowerRequest, PowerState

S5 = 5 << 2 | 0x20


def test_sleep_enable_with_s5_powers_off_once() -> None:
    power = Power()
    power.write(0, 1, S5)
    assert [power.take_request(), power.take_request()] == [
        PowerRequest.POWER_OFF,
        None,
    ]
    assert power.read(0, 1) == 5 << 2
    assert power.statistics().request_count == 1


@pytest.mark.parametrize(
    ("offset", "size", "value"), [(1, 1, S5), (0, 2, S5), (0, 1, 5 << 2), (0, 1, 0x24)]
)
def test_anything_else_does_not(offset: int, size: int, value: int) -> None:
    power = Power()
    power.write(offset, size, value)
    assert power.take_request() is None


def test_other_sleep_states_are_counted() -> None:
    power = Power()
    power.write(0, 1, 3 << 2 | 0x20)
    assert power.statistics().refused_count == 1


@given(
    state=st.builds(PowerState, sleep_control=st.integers(0, 255)),
    writes=st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from([1, 2, 4]), st.integers(0, 1 << 32)
        )
    ),
)
def test_no_access_raises_and_a_twin_behaves_alike(
    state: PowerState, writes: list[tuple[int, int, int]]
) -> None:
    one = Power.restore(state)
    assert one.save() == state
    for offset, size, value in writes:
        two = Power.restore(one.save())
        one.write(offset, size, value)
        two.write(offset, size, value)
        assert one.save() == two.save()
        assert one.take_request() == two.take_request()
        assert one.read(offset, size) == two.read(offset, size)
        assert 0 <= one.read(offset, size) < 1 << 8 * size
