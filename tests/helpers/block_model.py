"""virtio-blk in plain Python: the oracle for ``block.c``, and a rig to drive it.

:class:`BlockModel` says what one chain does to guest memory and to the disk.
:class:`BlockRig` is the guest's side of one ring over its own memory, with the
real device behind it; it knows nothing of requests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.helpers.driver import Buffer, Driver, RingLayout, guest_memory
from vmmd.bus import RegisterPage
from vmmd.virtio.device import RING_EVENT_IDX, Activation, IrqLine
from vmmd.virtio.ring import Ring

if TYPE_CHECKING:
    from vmmd.virtio.block import BlockDevice

IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
OK, IOERR, UNSUPP = 0, 1, 2
SECTOR = 512
HEADER = 16


Chain = tuple[Buffer, ...]


@dataclass(slots=True)
class BlockModel:
    """Serves chains one after the other, over its own memory and disk."""

    memory: bytearray
    disk: bytearray
    read_only: bool = False
    device_id: bytes = bytes(20)

    def serve(self, chain: Chain) -> int:
        """Carry out one request; the length that goes into the used ring."""
        writable = self._addresses(chain, writable=True)
        if not writable:
            return 0
        status = writable.pop()
        code, written = self._perform(self._read(chain), writable)
        self.memory[status] = code
        return written + 1

    def _perform(self, readable: bytes, writable: list[int]) -> tuple[int, int]:
        if len(readable) < HEADER:
            return IOERR, 0
        kind, _, sector = struct.unpack_from("<IIQ", readable)
        match kind:
            case 0:
                return self._in(sector, writable)
            case 1:
                return self._out(sector, readable[HEADER:]), 0
            case 4:
                return OK, 0
            case 8:
                return self._get_id(writable)
            case _:
                return UNSUPP, 0

    def _in(self, sector: int, writable: list[int]) -> tuple[int, int]:
        if not self._in_range(sector, len(writable)):
            return IOERR, 0
        self._store(writable, self.disk[sector * SECTOR :][: len(writable)])
        return OK, len(writable)

    def _out(self, sector: int, data: bytes) -> int:
        if self.read_only or not self._in_range(sector, len(data)):
            return IOERR
        self.disk[sector * SECTOR : sector * SECTOR + len(data)] = data
        return OK

    def _get_id(self, writable: list[int]) -> tuple[int, int]:
        if len(writable) < len(self.device_id):
            return IOERR, 0
        self._store(writable[:20], self.device_id)
        return OK, 20

    def _in_range(self, sector: int, length: int) -> bool:
        capacity = len(self.disk) // SECTOR
        return length % SECTOR == 0 and sector + length // SECTOR <= capacity

    def _store(self, addresses: list[int], data: bytes | bytearray) -> None:
        for address, byte in zip(addresses, data, strict=True):
            self.memory[address] = byte

    def _read(self, chain: Chain) -> bytes:
        return bytes(self.memory[i] for i in self._addresses(chain, writable=False))

    def _addresses(self, chain: Chain, *, writable: bool) -> list[int]:
        return [
            address
            for segment in chain
            if segment.writable == writable
            for address in range(segment.gpa, segment.gpa + segment.length)
        ]


class BlockRig:
    """A queue of 64 in the first 16 KiB of guest memory, and its driver."""

    DATA = 0x4000

    def __init__(self, size: int = 0x20000) -> None:
        self.memory = guest_memory(size)
        self.ring = Ring(self.memory)
        self.layout = RingLayout.at(0x1000, 64)
        self.driver = Driver(self.memory, self.layout)
        self.irq = IrqLine(RegisterPage())

    def activate(self, device: BlockDevice, *, event_idx: bool = False) -> None:
        """Lay the queue out afresh and hand it to the device."""
        self.memory.write(0, bytes(self.DATA))
        at = self.layout
        self.driver = Driver(self.memory, at, event_idx=event_idx)
        self.ring.configure(at.size, at.desc, at.avail, at.used, event_idx=event_idx)
        features = device.features if event_idx else device.features & ~RING_EVENT_IDX
        device.activate(Activation(self.memory, (self.ring,), features, self.irq))

    @property
    def bytes(self) -> bytes:
        """All of guest memory."""
        return self.memory.read(0, self.memory.size)
