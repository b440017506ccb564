"""The benchmarks' verdicts."""

from __future__ import annotations

import json
from math import nan

import pytest

from bench.harness import Bench, measure


@pytest.mark.parametrize(
    ("ours", "twin", "goal", "higher", "limit", "met"),
    [
        (2.0, 2.0, 1.1, False, None, True),
        (3.0, 2.0, 1.1, False, None, False),
        (3.0, 2.0, 0.9, True, None, True),
        (1.0, 2.0, 0.9, True, None, False),
        (1.0, 2.0, None, False, None, None),
        (0.0, nan, None, False, 0.0, True),
        (1.0, nan, None, False, 0.0, False),
        (2.0, 2.0, 1.1, False, 1.0, False),
    ],
)
def test_a_goal_is_a_ratio_and_a_limit_is_ours_alone(
    ours: float,
    twin: float,
    goal: float | None,
    higher: bool,
    limit: float | None,
    met: bool | None,
) -> None:
    bench = Bench("x", "us", lambda: ours, lambda: twin, goal, higher, limit)
    result = measure(bench, 3)
    assert result.met is met
    json.dumps(result.as_dict(), allow_nan=False)
