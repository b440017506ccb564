"""Rate limiters: token buckets on a clock that the caller reads.

A bucket holds ``size`` tokens and refills evenly, all of it in ``refill_time``
milliseconds; a one-time burst is spent first and never comes back. What a bucket
has is whole numbers throughout, so no rate drifts, however often it is asked.

The request that takes the last token may take more than there is, since its size
is known only once it was taken; one larger than the bucket could never pass else.
What it took too much is owed: nothing passes until the refill has paid for it.
(Firecracker lends to the larger ones alone, and forgives them part of the debt.)

``now_ns`` is a time in nanoseconds of any clock that never goes back.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Annotated

from vmmd.errors import SnapshotError
from vmmd.state.record import U64, IntRange, record

if TYPE_CHECKING:
    from vmmd.config import RateLimiterConfig, TokenBucketConfig

UNLIMITED = (1 << 64) - 1
# Who has to wait waits for what this long refills, or for half a bucket where
# that is less: a wake per token would cost more than what is limited.
PACE_NS = 10_000_000

_NS_PER_MS = 1_000_000
_U64_MAX = (1 << 64) - 1


class TokenBucket:
    """One limit. ``burst`` is what is left of the one-time burst."""

    def __init__(self, state: BucketState, now_ns: int) -> None:
        """The bucket as saved, as if no time had passed since."""
        self.size = state.size
        self.refill_time = state.refill_time
        self.burst = state.one_time_burst
        refill_ns = state.refill_time * _NS_PER_MS
        common = gcd(state.size, refill_ns)
        # In each step of so many ns so many tokens come, and no fraction.
        self._step_ns, self._step_tokens = refill_ns // common, state.size // common
        self._budget = state.budget  # at _since_ns; below zero: owed
        self._since_ns = now_ns - state.elapsed_ns
        pace = state.size * PACE_NS // refill_ns
        self._goal = max(1, min(pace, state.size // 2))

    def available(self, now_ns: int) -> int:
        """Tokens that may be taken now, never below zero."""
        return self.burst + max(0, self._level(now_ns))

    def take(self, tokens: int, now_ns: int) -> None:
        """Take ``tokens``, from the burst first; more than there is: the rest is
        owed."""
        self._settle(now_ns)
        spent = min(self.burst, tokens)
        self.burst -= spent
        self._budget -= tokens - spent

    def ready_at_ns(self, now_ns: int) -> int | None:
        """When to look again; None: there is a token now."""
        if self.available(now_ns):
            return None
        missing = (self._goal - self._budget) * self._step_ns
        return self._since_ns - (-missing // self._step_tokens)

    def save(self, now_ns: int) -> BucketState:
        """The record. Restored at any time it goes on as this one does now."""
        self._settle(now_ns)
        return BucketState(
            size=self.size,
            one_time_burst=self.burst,
            refill_time=self.refill_time,
            budget=self._budget,
            elapsed_ns=max(0, now_ns - self._since_ns),
        )

    def _level(self, now_ns: int) -> int:
        """Whole tokens in the bucket; below zero: owed."""
        elapsed = max(0, now_ns - self._since_ns)
        come = elapsed * self._step_tokens // self._step_ns
        return min(self.size, self._budget + come)

    def _settle(self, now_ns: int) -> None:
        """Book what has come in whole steps; the time of a full bucket is lost."""
        if self._level(now_ns) == self.size:
            self._budget = self.size
            self._since_ns = max(now_ns, self._since_ns)
            return
        steps = max(0, now_ns - self._since_ns) // self._step_ns
        self._budget += steps * self._step_tokens
        self._since_ns += steps * self._step_ns


class RateLimiter:
    """A limit of bytes, of operations, both or none. Each must have a token."""

    def __init__(self, bandwidth: TokenBucket | None, ops: TokenBucket | None) -> None:
        self.bandwidth = bandwidth
        self.ops = ops

    @classmethod
    def of(cls, config: RateLimiterConfig | None, now_ns: int) -> RateLimiter:
        """A new limiter: full, its bursts unspent."""
        return cls.restore(cold(config), now_ns)

    @classmethod
    def restore(cls, state: LimiterState | None, now_ns: int) -> RateLimiter:
        """The limiter as saved; None: one without limits."""
        if state is None:
            return cls(None, None)
        return cls(_bucket(state.bandwidth, now_ns), _bucket(state.ops, now_ns))

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return self.bandwidth is not None or self.ops is not None

    def allowance(self, now_ns: int) -> tuple[int, int]:
        """Operations and bytes that may pass now; UNLIMITED where nothing limits.

        The last operation may exceed the bytes. Either is zero: none may pass.
        """
        ops, bandwidth = self.ops, self.bandwidth
        return (
            UNLIMITED if ops is None else min(UNLIMITED, ops.available(now_ns)),
            UNLIMITED
            if bandwidth is None
            else min(UNLIMITED, bandwidth.available(now_ns)),
        )

    def consume(self, ops: int, size: int, now_ns: int) -> None:
        """``ops`` operations with ``size`` bytes in all have passed."""
        if self.ops is not None:
            self.ops.take(ops, now_ns)
        if self.bandwidth is not None:
            self.bandwidth.take(size, now_ns)

    def ready_at_ns(self, now_ns: int) -> int | None:
        """When one that may not pass should look again; None: it may pass now.

        Later than the first token: a wake is worth some milliseconds of them.
        """
        buckets = (self.ops, self.bandwidth)
        times = [bucket.ready_at_ns(now_ns) for bucket in buckets if bucket is not None]
        return max((time for time in times if time is not None), default=None)

    def update(self, config: RateLimiterConfig | None, now_ns: int) -> None:
        """What a PATCH does: a bucket not given stays as it is, a zero one goes,
        any other takes the old one's place, full."""
        if config is None:
            return
        if config.bandwidth is not None:
            self.bandwidth = _bucket(_cold_bucket(config.bandwidth), now_ns)
        if config.ops is not None:
            self.ops = _bucket(_cold_bucket(config.ops), now_ns)

    def save(self, now_ns: int) -> LimiterState | None:
        """The record; None without limits."""
        if not self.limits:
            return None
        return LimiterState(
            bandwidth=None if self.bandwidth is None else self.bandwidth.save(now_ns),
            ops=None if self.ops is None else self.ops.save(now_ns),
        )


def cold(config: RateLimiterConfig | None) -> LimiterState | None:
    """The state of a new limiter; None if neither bucket limits anything."""
    if config is None:
        return None
    bandwidth, ops = _cold_bucket(config.bandwidth), _cold_bucket(config.ops)
    if bandwidth is None and ops is None:
        return None
    return LimiterState(bandwidth=bandwidth, ops=ops)


def _cold_bucket(config: TokenBucketConfig | None) -> BucketState | None:
    if config is None or not config.limits:
        return None
    return BucketState(
        size=config.size,
        one_time_burst=config.one_time_burst or 0,
        refill_time=config.refill_time,
        budget=config.size,
    )


def _bucket(state: BucketState | None, now_ns: int) -> TokenBucket | None:
    return None if state is None else TokenBucket(state, now_ns)


@record("token_bucket", 1)
class BucketState:
    """A bucket. ``budget`` is what it held ``elapsed_ns`` ago (below zero: owed);
    ``one_time_burst`` is what is left of it; ``refill_time`` is in ms."""

    size: Annotated[int, IntRange(1, _U64_MAX)]
    refill_time: Annotated[int, IntRange(1, _U64_MAX // _NS_PER_MS)]
    budget: Annotated[int, IntRange(-(1 << 63), _U64_MAX)]
    one_time_burst: U64 = 0
    elapsed_ns: U64 = 0

    def __post_init__(self) -> None:
        """SnapshotError: more in the bucket than it holds."""
        if self.budget > self.size:
            raise SnapshotError(f"token_bucket: budget is {self.budget} of {self.size}")


@record("rate_limiter", 1)
class LimiterState:
    """A limiter; a bucket of None does not limit."""

    bandwidth: BucketState | None = None
    ops: BucketState | None = None
