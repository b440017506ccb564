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


async def test_waits_and_says_so(autojump_clock: MockClock) -> None:
    throttle, start = used_up(), trio.current_time()
    assert autojump_clock.autojump_threshold == 0
    assert await throttle.wait()
    assert trio.current_time() == pytest.approx(start + 0.1, abs=1e-5)
    assert throttle.allowance()[0] == 1


async def test_an_update_ends_a_wait(autojump_clock: MockClock) -> None:
    throttle, waits = used_up(), list[bool]()
    assert autojump_clock.autojump_threshold == 0

    async def wait() -> None:
        waits.append(await throttle.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(0.05)
        throttle.update(ops(TokenBucketConfig(7, 1, 1000)))
        assert throttle.allowance() == (8, UNLIMITED)
    assert waits == [False]
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
