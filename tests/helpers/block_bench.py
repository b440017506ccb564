"""A block device over a file in memory, its guest's side, and a model of both."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from tests.helpers.block_model import (
    HEADER,
    IN,
    SECTOR,
    BlockModel,
    BlockRig,
    Chain,
)
from tests.helpers.driver import Buffer
from vmmd.virtio.block import Backing, BlockDevice, BlockState, Stop

SECTORS = 32
DEVICE_ID = b"64769012345"
AT = BlockRig.DATA
BUFFER = 0x10000
NEVER = (1 << 64) - 1


@dataclass
class Bench:
    """A device over a file in memory, its rig, and a model of both."""

    read_only: bool = False
    cache_type: str = "Unsafe"
    nowait: bool = False
    rig: BlockRig = field(default_factory=BlockRig)

    def __post_init__(self) -> None:
        self.fd = os.memfd_create("disk")
        self.disk = bytearray(i * 7 & 0xFF for i in range(SECTORS * SECTOR))
        os.pwrite(self.fd, self.disk, 0)
        record = BlockState(
            drive_id="d",
            path_on_host="disk.img",
            is_read_only=self.read_only,
            cache_type=self.cache_type,
        )
        backing = Backing(self.fd, len(self.disk), DEVICE_ID, nowait=self.nowait)
        self.device = BlockDevice(record, backing)
        self.device.native.spin_ns = 0
        self.rig.activate(self.device)

    def close(self) -> None:
        os.close(self.fd)

    @property
    def file(self) -> bytes:
        return os.pread(self.fd, 2 * len(self.disk), 0)

    def model(self) -> BlockModel:
        """Memory and disk as they are now."""
        memory, disk = bytearray(self.rig.bytes), bytearray(self.file)
        return BlockModel(memory, disk, self.read_only, DEVICE_ID.ljust(20, b"\0"))

    def request(self, kind: int, sector: int, data: Chain, at: int) -> int:
        """Post header at ``at``, data, and a status after the header; its head."""
        self.rig.memory.write(at, struct.pack("<IIQB", kind, 0, sector, 0xFF))
        status = Buffer(at + HEADER, 1, writable=True)
        return self.rig.driver.add((Buffer(at, HEADER), *data, status))

    def fill(self, count: int, kind: int = IN) -> None:
        """Post ``count`` one-sector requests with buffers of their own."""
        for i in range(count):
            data = (Buffer(BUFFER + SECTOR * i, SECTOR, kind == IN),)
            self.request(kind, i, data, AT + 32 * i)

    def status(self, at: int) -> int:
        return self.rig.memory.read(at + HEADER, 1)[0]

    def work(self) -> None:
        """Carry out the next request that is ready."""
        slot = self.device.take()
        assert slot is not None
        self.device.run(slot)

    def run_dry(self) -> None:
        """Drain and work until nothing is left."""
        while self.device.drain() is not Stop.EMPTY or self.device.in_flight:
            while (slot := self.device.take()) is not None:
                self.device.run(slot)
