"""A rate limiter on the loop's clock, for one queue of a pump.

Before a drain the pump asks for the :meth:`~Throttle.allowance`, after it tells
what was used. A drain that stopped THROTTLED is tried again at the
:meth:`~Throttle.deadline`. Nothing ticks: only who has work and may not do it
waits for a time. A queue without limits has no Throttle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from vmmd.limiter import RateLimiter

if TYPE_CHECKING:
    from vmmd.config import RateLimiterConfig
    from vmmd.limiter import LimiterState

_NS_PER_S = 1_000_000_000
# trio's clock is a float: what is due must not be found to be just not due.
_SLACK_S = 1e-6


class Throttle:
    """Make it, and call it, from a trio task."""

    def __init__(self, state: LimiterState | None) -> None:
        """The limiter as saved; None: without limits, to be updated."""
        self._limiter = RateLimiter.restore(state, _now_ns())
        self._ready_ns: int | None = None

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return self._limiter.limits

    def allowance(self) -> tuple[int, int]:
        """Operations and bytes for the next drain; zeros while it has to wait."""
        now_ns = _now_ns()
        if self._ready_ns is not None:
            if now_ns < self._ready_ns:
                return 0, 0
            self._ready_ns = None
        return self._limiter.allowance(now_ns)

    def consume(self, ops: int, size: int) -> None:
        """The drain has let ``ops`` operations with ``size`` bytes pass."""
        self._limiter.consume(ops, size, _now_ns())

    def deadline(self) -> float:
        """After THROTTLED: when to drain again, on trio's clock; perhaps at once."""
        if self._ready_ns is None:
            self._ready_ns = self._limiter.ready_at_ns(_now_ns())
        if self._ready_ns is None:
            return trio.current_time()
        return self._ready_ns / _NS_PER_S + _SLACK_S

    def update(self, config: RateLimiterConfig | None) -> None:
        """What a PATCH does to a limiter. Who waits is to look again."""
        self._limiter.update(config, _now_ns())
        self._ready_ns = None

    def save(self) -> LimiterState | None:
        """The limiter as it is now; None without limits."""
        return self._limiter.save(_now_ns())


def _now_ns() -> int:
    return int(trio.current_time() * _NS_PER_S)
