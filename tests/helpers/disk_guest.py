"""A disk over a real file that is being pumped, and the guest's side of it."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tests.helpers.block_model import (
    FLUSH,
    HEADER,
    IN,
    BlockRig,
)
from tests.helpers.driver import Buffer
from vmmd.loop.disk import BackingFile, Disk
from vmmd.loop.eventfd import EventFd
from vmmd.loop.files import HostFile
from vmmd.virtio.block import BlockDevice, BlockState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vmmd.limiter import LimiterState


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
