"""A limiter on trio's clock, which is ours to move here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from vmmd.config import RateLimiterConfig, TokenBucketConfig
from vmmd.limiter import UNLIMITED, cold
from vmmd.loop.throttle import Throttle

if TYPE_CHECKING:
    from trio.testing import MockClock

NONE = TokenBucketConfig(0, None, 0)
TEN = TokenBucketConfig(10, None, 1000)


def ops(bucket: TokenBucketConfig) -> RateLimiterConfig:
    return RateLimiterConfig(None, bucket)


def used_up() -> Throttle:
    throttle = Throttle(cold(ops(TEN)))
    throttle.consume(10, 4096)
    return throttle


async def test_nothing_passes_before_the_deadline(mock_clock: MockClock) -> None:
    throttle = used_up()
    start = trio.current_time()
    assert throttle.allowance() == (0, UNLIMITED)
    assert throttle.deadline() == pytest.approx(start + 0.1, abs=1e-5)
    mock_clock.jump(0.0999)
    assert throttle.allowance() == (0, 0)
    mock_clock.jump(throttle.deadline() - trio.current_time())
    assert throttle.allowance() == (1, UNLIMITED)


async def test_a_token_that_came_meanwhile_is_waited_for_by_nobody(
    mock_clock: MockClock,
) -> None:
    throttle = used_up()
    mock_clock.jump(0.15)
    assert throttle.deadline() == trio.current_time()
    assert throttle.allowance() == (1, UNLIMITED)


async def test_an_update_counts_at_once(mock_clock: MockClock) -> None:
    throttle = used_up()
    assert throttle.deadline() > trio.current_time()
    mock_clock.jump(0.05)
    throttle.update(ops(TokenBucketConfig(7, 1, 1000)))
    assert throttle.allowance() == (8, UNLIMITED)
    throttle.update(ops(NONE))
    assert not throttle.limits
    assert throttle.allowance() == (UNLIMITED, UNLIMITED)


async def test_saves_what_is_left_now(mock_clock: MockClock) -> None:
    throttle = used_up()
    mock_clock.jump(0.25)
    twin = Throttle(throttle.save())
    assert twin.allowance() == throttle.allowance() == (2, UNLIMITED)
    mock_clock.jump(0.06)
    assert twin.allowance() == throttle.allowance() == (3, UNLIMITED)
