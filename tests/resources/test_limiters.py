"""Rate limiters: what counts as none, and merging."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import RateLimiterConfig, TokenBucketConfig
from vmmd.limiter import RateLimiter, cold
from vmmd.resources.limiters import (
    effective_bucket,
    effective_limiter,
    limiter_config,
    merge_limiter,
)

BUCKET = TokenBucketConfig(100, 5, 10)
NONE = RateLimiterConfig(None, None)
BUCKETS = st.none() | st.builds(
    TokenBucketConfig,
    st.integers(0, 3),
    st.none() | st.integers(0, 2),
    st.integers(0, 3),
)
LIMITERS = st.none() | st.builds(RateLimiterConfig, BUCKETS, BUCKETS)


@pytest.mark.parametrize(
    "bucket",
    [
        None,
        TokenBucketConfig(0, None, 10),
        TokenBucketConfig(10, None, 0),
        TokenBucketConfig(10, None, (1 << 64) // 1_000_000 + 1),
    ],
)
def test_buckets_that_do_not_limit(bucket: TokenBucketConfig | None) -> None:
    assert effective_bucket(bucket) is None
    assert effective_limiter(RateLimiterConfig(bucket, None)) is None


def test_buckets_that_do() -> None:
    assert effective_bucket(BUCKET) == BUCKET
    zero_burst = TokenBucketConfig(1, 0, 1)
    assert effective_bucket(zero_burst) == TokenBucketConfig(1, None, 1)
    longest = TokenBucketConfig(1, None, ((1 << 64) - 1) // 1_000_000)
    assert effective_bucket(longest) == longest
    assert effective_limiter(None) is None
    half = RateLimiterConfig(TokenBucketConfig(0, None, 0), BUCKET)
    assert effective_limiter(half) == RateLimiterConfig(None, BUCKET)


@given(LIMITERS)
def test_what_is_shown_after_a_restore(config: RateLimiterConfig | None) -> None:
    assert limiter_config(cold(config)) == effective_limiter(config)


def test_of_a_burst_is_shown_what_is_left() -> None:
    limiter = RateLimiter.of(RateLimiterConfig(BUCKET, BUCKET), 0)
    limiter.consume(5, 3, 0)
    assert limiter_config(limiter.save(0)) == RateLimiterConfig(
        TokenBucketConfig(100, 2, 10), TokenBucketConfig(100, None, 10)
    )


@given(LIMITERS, LIMITERS)
def test_merging(
    old: RateLimiterConfig | None, update: RateLimiterConfig | None
) -> None:
    now = effective_limiter(old)
    assert merge_limiter(now, None) == now
    assert merge_limiter(now, NONE) == now
    after = merge_limiter(now, update) or NONE
    for name in ("bandwidth", "ops"):
        given_bucket = getattr(update, name, None)
        kept = getattr(now, name, None)
        expected = kept if given_bucket is None else effective_bucket(given_bucket)
        assert getattr(after, name) == expected
