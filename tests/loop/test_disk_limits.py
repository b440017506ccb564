"""Rate limits of a disk that is being pumped."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.block_model import (
    IN,
)
from tests.helpers.disk_guest import (
    AT,
    Guest,
    guest_on,
)
from vmmd.config import RateLimiterConfig, TokenBucketConfig
from vmmd.limiter import BucketState, LimiterState, cold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


@pytest.fixture
def path() -> Iterator[Path]:
    """A disk in memory, where no request has to wait for a worker."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        made = Path(name) / "disk.img"
        made.write_bytes(bytes(1 << 20))
        yield made


class TestLimits:
    """On a clock that jumps when nobody has anything to do."""

    BYTES = RateLimiterConfig(TokenBucketConfig(8192, None, 1000), None)
    OPS = RateLimiterConfig(None, TokenBucketConfig(2, 1, 1000))
    NONE = RateLimiterConfig(TokenBucketConfig(0, None, 0), None)

    async def answered_at(self, guest: Guest, count: int) -> list[float]:
        """Post so many reads at once; when each was answered, from the first on."""
        await trio.testing.wait_all_tasks_blocked()
        for i in range(count):
            guest.request(IN, 8 * i, AT + 32 * i)
        guest.kick.signal()
        times = list[float]()
        while len(times) < count:
            await guest.interrupt.wait()
            new = guest.rig.driver.used_index() - len(times)
            times.extend([trio.current_time()] * new)
        return [round(time - times[0], 3) for time in times]

    async def test_bytes(self, path: Path, autojump_clock: MockClock) -> None:
        assert autojump_clock.autojump_threshold == 0
        async with guest_on(path, limiter=cold(self.BYTES)) as guest:
            # Ten ms bring 81 bytes; what a request takes too much is paid first.
            seen = await self.answered_at(guest, 5)
            assert seen == [0, 0, 0.01, 0.51, 1.01]
            statistics = guest.disk.device.statistics()
            assert statistics.rate_limiter_event_count == 3
            assert statistics.rate_limiter_throttled_events == 3

    async def test_operations_and_the_burst(
        self, path: Path, autojump_clock: MockClock
    ) -> None:
        assert autojump_clock.autojump_threshold == 0
        async with guest_on(path, limiter=cold(self.OPS)) as guest:
            assert await self.answered_at(guest, 5) == [0, 0, 0, 0.5, 1.0]

    async def test_nothing_ticks_when_nobody_asks(
        self, path: Path, autojump_clock: MockClock
    ) -> None:
        async with guest_on(path, limiter=cold(self.OPS)) as guest:
            await self.answered_at(guest, 3)
            autojump_clock.autojump_threshold = float("inf")
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 1e6

    async def test_a_patch_lets_go_of_what_waits(
        self, path: Path, mock_clock: MockClock
    ) -> None:
        """The clock stands, so only the patch can."""
        assert mock_clock.rate == 0
        async with guest_on(path, limiter=cold(self.OPS)) as guest:
            for i in range(9):
                guest.request(IN, 8 * i, AT + 32 * i)
            await guest.done(3)
            await trio.testing.wait_all_tasks_blocked()
            assert guest.rig.driver.used_index() == 3
            guest.disk.limit(RateLimiterConfig(None, TokenBucketConfig(4, None, 1)))
            await guest.answered(7)
            guest.disk.limit(RateLimiterConfig(None, TokenBucketConfig(0, None, 0)))
            await guest.answered(9)
            assert guest.disk.device.save().limiter is None

    async def test_a_patch_limits_what_was_not(
        self, path: Path, autojump_clock: MockClock
    ) -> None:
        assert autojump_clock.autojump_threshold == 0
        async with guest_on(path) as guest:
            guest.disk.limit(self.OPS)
            assert await self.answered_at(guest, 5) == [0, 0, 0, 0.5, 1.0]

    async def test_the_record_has_what_is_left(
        self, path: Path, mock_clock: MockClock
    ) -> None:
        async with guest_on(path, limiter=cold(self.OPS)) as guest:
            guest.request(IN, 0, AT)
            guest.request(IN, 0, AT + 32)
            await guest.done(2)
            await guest.disk.quiesce()
            left = BucketState(size=2, refill_time=1000, budget=1)
            assert guest.disk.device.save().limiter == LimiterState(ops=left)
            mock_clock.jump(1)
            await guest.disk.sync()
            full = BucketState(size=2, refill_time=1000, budget=2)
            assert guest.disk.device.save().limiter == LimiterState(ops=full)
