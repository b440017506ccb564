"""Waiting for another process, which gives nothing else to wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def until(
    true: Callable[[], bool], deadline_s: float = 30.0, *, every_s: float = 0.005
) -> None:
    """Ask again and again, where that costs little. AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(every_s)
