"""Disks over real files: the pump, its workers, pause, flush, and bad files."""

from __future__ import annotations

import os
import struct
import threading
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.block_model import (
    FLUSH,
    HEADER,
    IN,
    IOERR,
    OK,
    OUT,
    SECTOR,
    BlockRig,
)
from tests.helpers.driver import Buffer
from tests.helpers.gate import Gate
from vmmd.config import DriveConfig, RateLimiterConfig, TokenBucketConfig
from vmmd.errors import ConfigError
from vmmd.limiter import BucketState, LimiterState, cold
from vmmd.loop.disk import BackingFile, Disk, device_id, knows_nowait
from vmmd.loop.eventfd import EventFd
from vmmd.loop.files import HostFile
from vmmd.resources.drives import open_drive
from vmmd.virtio.block import BlockDevice, BlockState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

SIZE = 1 << 20
AT = BlockRig.DATA
BUFFER = 0x10000
NEVER = (1 << 64) - 1


@dataclass
class Guest:
    """A disk that is being pumped, and the guest's side of it.

    It is the pump's transport, too.
    """

    disk: Disk
    kick: EventFd
    interrupt: EventFd
    rig: BlockRig = field(default_factory=BlockRig)
    broken: int = 0
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rig.irq.fd = self.interrupt.fd

    def mark_broken(self) -> None:
        self.broken += 1

    def request(self, kind: int, sector: int, at: int, data: int = BUFFER) -> None:
        """Post a request of one 4 KiB page, without a kick."""
        self.rig.memory.write(at, struct.pack("<IIQB", kind, 0, sector, 0xFF))
        pages = () if kind == FLUSH else (Buffer(data, 4096, kind == IN),)
        status = Buffer(at + HEADER, 1, writable=True)
        self.rig.driver.add((Buffer(at, HEADER), *pages, status))

    def status(self, at: int) -> int:
        return self.rig.memory.read(at + HEADER, 1)[0]

    async def answered(self, count: int) -> None:
        """Wait for interrupts until ``count`` requests in all are answered."""
        with trio.fail_after(5):
            while self.rig.driver.used_index() != count:
                await self.interrupt.wait()

    async def done(self, count: int) -> None:
        """Kick, and wait until ``count`` requests in all are answered."""
        self.kick.signal()
        await self.answered(count)

    async def close(self) -> None:
        await self.disk.aclose()
        self.kick.close()
        self.interrupt.close()


def opened(path: Path, *, writable: bool = True) -> BackingFile:
    """A disk's own descriptor of a file."""
    with closing(HostFile.open_disk(str(path), writable)) as file:
        return BackingFile.of(file)


def make_guest(
    path: Path, cache_type: str = "Unsafe", limiter: LimiterState | None = None
) -> Guest:
    file = opened(path)
    record = BlockState(
        drive_id="d", path_on_host=str(path), cache_type=cache_type, limiter=limiter
    )
    device = BlockDevice(record, file.backing)
    lines: list[str] = []
    guest = Guest(Disk(device, file, lines.append), EventFd(), EventFd(), lines=lines)
    guest.rig.activate(device)
    return guest


@asynccontextmanager
async def guest_on(
    path: Path, cache_type: str = "Unsafe", limiter: LimiterState | None = None
) -> AsyncIterator[Guest]:
    guest = make_guest(path, cache_type, limiter)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.disk.pump, guest, guest.kick)
            yield guest
            nursery.cancel_scope.cancel()
    finally:
        await guest.close()


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file of numbered sectors: on the disk's file system, and in memory."""
    folder = "/var/tmp" if request.param == "disk" else "/dev/shm"
    with TemporaryDirectory(dir=folder) as name:
        made = Path(name) / "disk.img"
        made.write_bytes(
            b"".join(struct.pack("<Q", i) * 64 for i in range(SIZE // SECTOR))
        )
        yield made


def page(sector: int) -> bytes:
    return b"".join(struct.pack("<Q", sector + i) * 64 for i in range(8))


def contents(path: Path) -> bytes:
    return path.read_bytes()


async def test_reads_writes_and_flushes(path: Path) -> None:
    async with guest_on(path, "Writeback") as guest:
        guest.request(IN, 8, AT)
        await guest.done(1)
        assert guest.rig.memory.read(BUFFER, 4096) == page(8)
        guest.rig.memory.write(BUFFER, b"w" * 4096)
        guest.request(OUT, 16, AT)
        guest.request(FLUSH, 0, AT + 32)
        guest.request(IN, 16, AT + 64, BUFFER + 4096)
        await guest.done(4)
        assert [guest.status(at) for at in (AT, AT + 32, AT + 64)] == [OK] * 3
        assert guest.rig.memory.read(BUFFER + 4096, 4096) == b"w" * 4096
    assert contents(path)[8192 : 8192 + 4096] == b"w" * 4096
    assert guest.disk.device.statistics().flush_count == 1


async def test_pulls_before_it_waits(path: Path) -> None:
    guest = make_guest(path)
    guest.request(IN, 0, AT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest.disk.pump, guest, guest.kick)
        await guest.answered(1)
        nursery.cancel_scope.cancel()
    assert guest.disk.device.statistics().queue_event_count == 0
    await guest.close()


@pytest.mark.parametrize("path", ["disk"], indirect=True)
async def test_what_is_not_cached_goes_to_a_worker(path: Path) -> None:
    async with guest_on(path) as guest:
        assert guest.disk.file.backing.nowait, f"no RWF_NOWAIT where {path} lies"
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for i in range(8):
            guest.request(IN, 256 * i, AT + 32 * i, BUFFER + 4096 * i)
        await guest.done(8)
        for i in range(8):
            assert guest.status(AT + 32 * i) == OK
            assert guest.rig.memory.read(BUFFER + 4096 * i, 4096) == page(256 * i)
        assert guest.disk.device.statistics().worker_count > 0


async def test_kicks_are_counted_and_own_signals_are_not(path: Path) -> None:
    async with guest_on(path) as guest:
        guest.disk.device.native.slow_until_ns = NEVER
        guest.request(OUT, 0, AT)
        await guest.done(1)
        await guest.disk.quiesce()
        guest.disk.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert guest.disk.device.statistics().worker_count == 1
        assert guest.disk.device.statistics().queue_event_count == 1


async def test_quiesce_waits_for_workers_and_takes_nothing_new(path: Path) -> None:
    async with guest_on(path) as guest, trio.open_nursery() as nursery:
        gate = Gate(guest.disk.device)
        guest.request(OUT, 0, AT)
        guest.kick.signal()
        await gate.entered.wait()
        quiet = trio.Event()

        async def quiesce() -> None:
            await guest.disk.quiesce()
            quiet.set()

        nursery.start_soon(quiesce)
        await trio.testing.wait_all_tasks_blocked()
        guest.request(IN, 8, AT + 32)
        guest.kick.signal()
        await trio.testing.wait_all_tasks_blocked()
        assert not quiet.is_set()
        gate.open()
        with trio.fail_after(5):
            await quiet.wait()
        assert guest.disk.device.in_flight == 0
        guest.kick.signal()
        await trio.testing.wait_all_tasks_blocked()
        assert guest.rig.driver.used_index() == 1
        guest.disk.resume()
        await guest.answered(2)


async def test_cancel_waits_for_workers(path: Path) -> None:
    guest = make_guest(path)
    gate = Gate(guest.disk.device)
    guest.request(OUT, 8, AT)
    ended = trio.Event()

    async def pump(scope: trio.CancelScope) -> None:
        with scope:
            await guest.disk.pump(guest, guest.kick)
        ended.set()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, scope)
        await gate.entered.wait()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        gate.open()
        with trio.fail_after(5):
            await ended.wait()
    await guest.close()
    assert contents(path)[4096:8192] == bytes(4096)


async def test_more_slow_requests_than_slots(path: Path) -> None:
    async with guest_on(path) as guest:
        guest.disk.device.native.slow_until_ns = NEVER
        for i in range(14):
            guest.rig.memory.write(BUFFER + 4096 * (i % 8), bytes([i % 8]) * 4096)
            guest.request(OUT, 8 * i, AT + 32 * i, BUFFER + 4096 * (i % 8))
        await guest.done(14)
    written = contents(path)
    assert all(written[4096 * i] == i % 8 for i in range(14))


async def test_a_budget_lets_others_run(path: Path) -> None:
    async with guest_on(path) as guest:
        guest.disk.device.native.max_requests = 1
        for i in range(10):
            guest.request(IN, 8 * i, AT + 32 * i)
        seen = set[int]()
        guest.kick.signal()
        with trio.fail_after(5):
            while guest.rig.driver.used_index() != 10:
                await trio.lowlevel.checkpoint()
                seen.add(guest.rig.driver.used_index())
        assert len(seen) > 5


async def test_a_broken_ring_is_told_once(path: Path) -> None:
    async with guest_on(path) as guest:
        guest.rig.driver.poke_avail_idx(1000)
        for _ in range(3):
            guest.kick.signal()
            await trio.testing.wait_all_tasks_blocked()
        assert guest.broken == 1
        assert guest.lines == [f"block d: {guest.rig.ring.fault}; needs a reset"]
        assert guest.disk.device.statistics().event_fails == 1
        guest.disk.device.reset()
        guest.rig.activate(guest.disk.device)
        guest.request(IN, 0, AT)
        await guest.done(1)
        assert guest.status(AT) == OK


async def test_replace(path: Path) -> None:
    other = path.with_name("two.img")
    other.write_bytes(b"2" * 8192)
    async with guest_on(path) as guest:
        await guest.disk.replace(opened(other))
        guest.request(IN, 0, AT)
        guest.request(IN, 16, AT + 32)
        await guest.done(2)
        assert guest.rig.memory.read(BUFFER, 4096) == b"2" * 4096
        assert guest.status(AT + 32) == IOERR
        assert guest.disk.device.config_space() == (16).to_bytes(8, "little")
        assert guest.disk.device.save().path_on_host == str(other)


@pytest.mark.parametrize("way", ["spin", "doze"])
async def test_a_waiting_drain_answers_by_itself(path: Path, way: str) -> None:
    """Hits are learned: the driver asks again while the drain still waits."""
    rounds = 20
    async with guest_on(path) as guest:
        native = guest.disk.device.native
        native.spin_ns, native.doze_ns, native.max_ns = 0, 0, 4 * 10**9
        setattr(native, f"{way}_ns", 900_000_000)
        getattr(native, way).score = 1
        # Interrupts would be other work for the loop, which ends a doze.
        guest.rig.irq.fd = -1
        guest.request(IN, 0, AT)
        guest.kick.signal()
        driven, token = trio.Event(), trio.lowlevel.current_trio_token()

        def drive() -> None:
            deadline = time.monotonic() + 5
            for i in range(1, rounds):
                while guest.rig.driver.used_index() != i:
                    if time.monotonic() > deadline:
                        return
                guest.rig.driver.reap()
                if i == rounds - 1:
                    native.spin_ns = native.doze_ns = 0
                guest.request(IN, 8 * i, AT)
                if way == "doze":
                    guest.kick.signal()
            while guest.rig.driver.used_index() != rounds:
                pass
            token.run_sync_soon(driven.set)

        # The pump holds the loop from its first turn on, so no to_thread here.
        thread = threading.Thread(target=drive)
        thread.start()
        with trio.fail_after(10):
            await driven.wait()
        thread.join()
        seen = guest.disk.device.statistics()
        hits = seen.spin_hit_count if way == "spin" else seen.doze_hit_count
        assert seen.read_count == rounds
        assert hits >= rounds - 4
        assert seen.queue_event_count - seen.doze_hit_count <= 2


async def test_other_work_ends_a_doze(path: Path) -> None:
    """While the drain sleeps, the loop's thread is in it; a signal gets it out."""
    other, seen = EventFd(), list[float]()
    async with guest_on(path) as guest, trio.open_nursery() as nursery:
        native = guest.disk.device.native
        native.spin_ns, native.doze_ns, native.doze.score = 0, 999_000_000, 1

        async def wait_for_other() -> None:
            await other.wait()
            seen.append(time.monotonic())

        def signal_during_the_doze() -> None:
            deadline = time.monotonic() + 5
            while not native.counters.reads and time.monotonic() < deadline:
                pass
            seen.append(time.monotonic())
            other.signal()

        nursery.start_soon(wait_for_other)
        await trio.testing.wait_all_tasks_blocked()
        thread = threading.Thread(target=signal_during_the_doze)
        thread.start()
        guest.request(IN, 0, AT)
        guest.kick.signal()
    thread.join()
    other.close()
    assert guest.disk.device.statistics().doze_count == 1
    assert seen[1] - seen[0] < 0.5


@pytest.mark.parametrize("path", ["memory"], indirect=True)
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


class TestBackingFile:
    PREFIX = (
        "Drive config error: Unable to create the virtio block device: Virtio backend "
        "error: Error manipulating the backing file: "
    )

    def refusal(self, path: Path | str, *, read_only: bool = False) -> str:
        config = DriveConfig(
            "d", None, False, is_read_only=read_only, path_on_host=str(path)
        )
        with pytest.raises(ConfigError) as caught:
            open_drive(config, HostFile.open_disk)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "missing.img"
        assert self.refusal(path) == (
            f"{self.PREFIX}No such file or directory (os error 2) {path}"
        )

    def test_no_path(self) -> None:
        assert self.refusal("") == (
            f"{self.PREFIX}No such file or directory (os error 2) "
        )

    def test_directory(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path) == (
            f"{self.PREFIX}Is a directory (os error 21) {tmp_path}"
        )

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        assert self.refusal(path, read_only=True) == (
            f"{self.PREFIX}Invalid seek (os error 29) {path}"
        )

    def test_size_and_id(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.img"
        path.write_bytes(bytes(700))
        file = opened(path, writable=False)
        info = path.stat()
        assert file.backing.size == 700
        assert (
            file.backing.device_id
            == (f"{info.st_dev}{info.st_rdev}{info.st_ino}".encode()[:20])
        )
        assert not os.get_inheritable(file.backing.fd)
        file.close()
        file.close()

    def test_nowait_is_probed(self) -> None:
        fd = os.memfd_create("m")
        os.write(fd, b"x")
        assert not knows_nowait(fd)
        assert device_id(fd)
        os.close(fd)
