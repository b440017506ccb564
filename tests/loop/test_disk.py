"""Disks over real files: the pump, its workers, pause, flush, and bad files."""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.block_model import (
    FLUSH,
    IN,
    IOERR,
    OK,
    OUT,
    SECTOR,
)
from tests.helpers.disk_guest import (
    AT,
    BUFFER,
    NEVER,
    guest_on,
    make_guest,
    opened,
)
from tests.helpers.gate import Gate
from vmmd.loop.eventfd import EventFd

if TYPE_CHECKING:
    from collections.abc import Iterator


SIZE = 1 << 20


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
