"""A guest that reads and writes as fast as it is let: ten seconds at a limit.

The rate is what a limiter is for, so here a test times.
"""

from __future__ import annotations

import os
import struct
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.driver import RingLayout
from tests.helpers.flat import DATA
from tests.helpers.vcpus import MMIO, Machine, Setup, machine
from vmmd.bus import RegisterPage
from vmmd.config import RateLimiterConfig, TokenBucketConfig
from vmmd.limiter import cold
from vmmd.loop.disk import BackingFile, Disk
from vmmd.loop.eventfd import EventFd
from vmmd.loop.files import HostFile
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.block import BlockDevice, BlockState
from vmmd.virtio.device import VERSION_1, Activation, IrqLine
from vmmd.virtio.ring import Ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BLOCK, QUEUE, DEPTH = 4096, 256, 32
RING = RingLayout.at(DATA, QUEUE)
HEADERS, BUFFERS = DATA + 0x4000, DATA + 0x10000
NOTIFY = MMIO + 0x50
SPENT_S, SECONDS, TOLERANCE = 1, 10, 0.05
MIB = 1 << 20

# The host has laid out DEPTH requests, half of them writes, and an available ring
# that names them over and over: the guest offers them all, waits, and again.
GUEST = f"""
    xor r10d, r10d
again:
    add r10d, {DEPTH}
    mov [{RING.avail + 2}], r10w
    mfence
    test word ptr [{RING.used}], 1
    jnz wait
    mov edx, {NOTIFY}
    mov dword ptr [rdx], 0
wait:
    pause
    cmp [{RING.used + 2}], r10w
    jne wait
    jmp again
"""


def lay_out(memory: GuestMemory) -> None:
    for slot in range(DEPTH):
        header, write = HEADERS + 64 * slot, slot % 2
        memory.write(header, struct.pack("<IIQ", write, 0, 8 * slot))
        rows = (
            (header, 16, 1, 3 * slot + 1),
            (BUFFERS + BLOCK * slot, BLOCK, 1 if write else 3, 3 * slot + 2),
            (header + 16, 1, 2, 0),
        )
        raw = b"".join(struct.pack("<QIHH", *row) for row in rows)
        memory.write(RING.desc + 48 * slot, raw)
    heads = [3 * (i % DEPTH) for i in range(QUEUE)]
    memory.write(RING.avail + 4, struct.pack(f"<{QUEUE}H", *heads))


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    """A disk in memory: nothing but the limiter holds it up."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        path = os.path.join(name, "disk.img")
        with open(path, "wb") as made:  # noqa: ASYNC230  (before the guest runs)
            made.truncate(BLOCK * DEPTH)
        with closing(HostFile.open_disk(path, writable=True)) as opened:
            file = BackingFile.of(opened)
        record = BlockState(drive_id="d", path_on_host=path)
        made_of = Disk(BlockDevice(record, file.backing), file, print)
        yield made_of
        await made_of.aclose()


class NoTransport:
    """Nobody is to break a ring here."""

    def mark_broken(self) -> None:
        raise AssertionError("the ring broke")


def done(disk: Disk) -> tuple[int, int]:
    """Requests and bytes so far."""
    seen = disk.device.statistics()
    return seen.read_count + seen.write_count, seen.read_bytes + seen.write_bytes


async def measured(m: Machine, disk: Disk) -> tuple[float, float]:
    """Requests and bytes a second, once the full bucket and the burst are spent."""
    m.threads.run()
    await trio.sleep(SPENT_S)
    assert disk.device.statistics().rate_limiter_event_count
    start, before = trio.current_time(), done(disk)
    await trio.sleep(SECONDS)
    took, after = trio.current_time() - start, done(disk)
    return (after[0] - before[0]) / took, (after[1] - before[1]) / took


async def serve(m: Machine, disk: Disk) -> tuple[float, float]:
    """Wire the disk to the guest and measure."""
    memory = GuestMemory([Region(0, memoryview(m.flat.memory))])
    lay_out(memory)
    ring, kick = Ring(memory), EventFd()
    ring.configure(QUEUE, RING.desc, RING.avail, RING.used, event_idx=False)
    irq = IrqLine(RegisterPage())
    disk.device.activate(Activation(memory, (ring,), VERSION_1, irq))
    m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.pump, NoTransport(), kick)
        seen = await measured(m, disk)
        await m.pause()
        nursery.cancel_scope.cancel()
    m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, 0, assign=False)
    kick.close()
    disk.device.reset()
    return seen


async def rates(disk: Disk) -> tuple[float, float]:
    """Run the guest against the disk; requests and bytes a second."""
    async with machine(Setup([GUEST]), timeout_s=60) as m:
        return await serve(m, disk)


async def test_bandwidth(disk: Disk) -> None:
    limit = TokenBucketConfig(20 * MIB, 8 * MIB, 1000)
    disk.device.limiter = cold(RateLimiterConfig(limit, None))
    _, bandwidth = await rates(disk)
    print(f"{bandwidth / MIB:.3f} MiB/s of 20")
    assert bandwidth == pytest.approx(20 * MIB, rel=TOLERANCE)


async def test_operations(disk: Disk) -> None:
    limit = TokenBucketConfig(1000, 500, 1000)
    disk.device.limiter = cold(RateLimiterConfig(None, limit))
    ops, _ = await rates(disk)
    print(f"{ops:.1f} requests/s of 1000")
    assert ops == pytest.approx(1000, rel=TOLERANCE)
