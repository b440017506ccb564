"""The log line that says how long an action took, in Firecracker's words."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def took(say: Callable[[str], None], action: str) -> Iterator[None]:
    """Say, once it is done, how long the body took; nothing if it raises."""
    started_ns = time.monotonic_ns()
    yield
    took_us = (time.monotonic_ns() - started_ns) // 1000
    say(f"'{action}' VMM action took {took_us} us.")
