"""What rate limiters come of their configurations and patches."""

from __future__ import annotations

from dataclasses import replace

from vmmd.config import RateLimiterConfig, TokenBucketConfig

_U64_MAX = (1 << 64) - 1
_NS_PER_MS = 1_000_000


def effective_limiter(config: RateLimiterConfig | None) -> RateLimiterConfig | None:
    """The limiter that comes of a config: None if neither bucket limits."""
    if config is None:
        return None
    return _limiter(effective_bucket(config.bandwidth), effective_bucket(config.ops))


def effective_bucket(config: TokenBucketConfig | None) -> TokenBucketConfig | None:
    """The bucket that comes of a config: a size or refill time of 0 is none."""
    if config is None or not config.size or not config.refill_time:
        return None
    if config.refill_time * _NS_PER_MS > _U64_MAX:
        return None
    return replace(config, one_time_burst=config.one_time_burst or None)


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
