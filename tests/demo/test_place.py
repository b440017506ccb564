"""Which KVM the demo trusts with a kernel."""

from __future__ import annotations

import pytest

from demo.place import judge
from vmmd.loop.probe import NATIVE_NS


@pytest.mark.parametrize("cost_ns", [0.2, 5.0, NATIVE_NS])
def test_a_kvm_that_runs_level_0_natively_is_taken(cost_ns: float) -> None:
    place = judge(cost_ns)
    assert place.native
    assert f"{cost_ns:.1f} ns" in str(place)


@pytest.mark.parametrize("cost_ns", [NATIVE_NS + 1, 600.0, None])
def test_one_that_emulates_it_or_hangs_is_not(cost_ns: float | None) -> None:
    place = judge(cost_ns)
    assert not place.native
    assert str(place).startswith("Where: in the lab, since ")
