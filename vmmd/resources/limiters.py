"""What rate limiters come of their configurations and patches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmmd.config import RateLimiterConfig, TokenBucketConfig

if TYPE_CHECKING:
    from vmmd.limiter import BucketState, LimiterState


def effective_limiter(config: RateLimiterConfig | None) -> RateLimiterConfig | None:
    """The limiter that comes of a config: None if neither bucket limits."""
    if config is None:
        return None
    return _limiter(effective_bucket(config.bandwidth), effective_bucket(config.ops))


def effective_bucket(config: TokenBucketConfig | None) -> TokenBucketConfig | None:
    """The bucket that comes of a config: None if it does not limit."""
    if config is None or not config.limits:
        return None
    return replace(config, one_time_burst=config.one_time_burst or None)


def limiter_config(state: LimiterState | None) -> RateLimiterConfig | None:
    """The limiter that a record stands for. Of a burst, only what is left."""
    if state is None:
        return None
    return _limiter(_bucket_config(state.bandwidth), _bucket_config(state.ops))


def _bucket_config(state: BucketState | None) -> TokenBucketConfig | None:
    if state is None:
        return None
    return TokenBucketConfig(
        state.size, state.one_time_burst or None, state.refill_time
    )


def merge_limiter(
    old: RateLimiterConfig | None, update: RateLimiterConfig | None
) -> RateLimiterConfig | None:
    """A limiter after a PATCH: a bucket not given stays, a zero one goes."""
    before = old or RateLimiterConfig(None, None)
    given = update or RateLimiterConfig(None, None)
    return _limiter(
        _merge_bucket(before.bandwidth, given.bandwidth),
        _merge_bucket(before.ops, given.ops),
    )


def _merge_bucket(
    old: TokenBucketConfig | None, update: TokenBucketConfig | None
) -> TokenBucketConfig | None:
    return old if update is None else effective_bucket(update)


def _limiter(
    bandwidth: TokenBucketConfig | None, ops: TokenBucketConfig | None
) -> RateLimiterConfig | None:
    if bandwidth is None and ops is None:
        return None
    return RateLimiterConfig(bandwidth, ops)
