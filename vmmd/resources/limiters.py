"""What rate limiters come of their configurations and patches."""

from __future__ import annotations

from dataclasses import replace

from vmmd.config import RateLimiterConfig, TokenBucketConfig


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
