"""Waiting for another process, which gives nothing else to wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S = 0.005


def until(true: Callable[[], bool], deadline_s: float = 30.0) -> None:
    """Ask again and again. AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(_EVERY_S)
