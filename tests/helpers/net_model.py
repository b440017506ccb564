"""virtio-net in plain Python: the oracle for ``net.c``, and a rig to drive it.

:class:`NetModel` says what frames do to guest memory and to the rings.
:class:`NetRig` is the guest's side of both rings over its own memory, with the
real device behind it and a socket pair that stands for the tap: like one, it
keeps frames apart, is full at some point, and cuts off what a read has no room
for.
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field

from tests.helpers.driver import Buffer, Driver, RingLayout, guest_memory
from vmmd.bus import RegisterPage
from vmmd.virtio.device import RING_EVENT_IDX, Activation, IrqLine
from vmmd.virtio.net import NetDevice, NetState
from vmmd.virtio.net_features import Feature
from vmmd.virtio.ring import Ring

HEADER, ETHERNET, MAX_FRAME = 12, 14, 65562
QUEUE = 64
MAC = bytes.fromhex("020000000001")

Chain = tuple[Buffer, ...]


@dataclass(slots=True)
class NetModel:
    """Serves frames one after the other, over its own memory.

    ``room`` is what has to be there before a frame is read, with MRG_RXBUF.
    """

    memory: bytearray
    mergeable: bool = False
    room: int = 1530
    ring_size: int = QUEUE
    offered: deque[tuple[int, Chain]] = field(default_factory=deque)
    used: list[tuple[int, int]] = field(default_factory=list)
    fails: int = 0

    def transmit(self, chain: Chain) -> bytes | None:
        """What the tap gets of a chain, the header included; None: malformed."""
        whole = bytes(self.memory[i] for i in addresses(chain, writable=False))
        return whole if HEADER + ETHERNET <= len(whole) <= MAX_FRAME else None

    def receive(self, frames: deque[bytes]) -> str:
        """Take frames until they, or the buffers, are used up; says which."""
        while self._enough():
            if not frames:
                return "WOULD_BLOCK"
            self._place(frames.popleft())
        return "NO_BUFFERS"

    def _enough(self) -> bool:
        if self.mergeable:
            total = sum(len(room_of(chain)) for _, chain in self.offered)
            return total >= self.room or len(self.offered) >= self.ring_size
        while self.offered and len(room_of(self.offered[0][1])) < HEADER + ETHERNET:
            self.used.append((self.offered.popleft()[0], 0))
            self.fails += 1
        return bool(self.offered)

    def _place(self, frame: bytes) -> None:
        taken = self._take(len(frame))
        places = [at for _, chain in taken for at in room_of(chain)]
        for at, byte in zip(places, frame, strict=False):
            self.memory[at] = byte
        fits = len(frame) <= len(places) - self._spare(taken)
        if not fits or len(frame) < HEADER + ETHERNET:
            self.fails += 1
            if not fits:
                self.room = MAX_FRAME
            self.offered.extendleft(reversed(taken))
            return
        for i, byte in enumerate(len(taken).to_bytes(2, "little")):
            self.memory[places[10 + i]] = byte
        left = len(frame)
        for head, chain in taken:
            part = min(left, len(room_of(chain)))
            self.used.append((head, part))
            left -= part

    def _spare(self, taken: list[tuple[int, Chain]]) -> int:
        """One buffer larger than need be must not be filled: that looks cut off."""
        parts = [part.length for _, chain in taken for part in chain if part.writable]
        return int(len(parts) == 1 and parts[0] > self.room)

    def _take(self, length: int) -> list[tuple[int, Chain]]:
        """The chains that hold ``length`` bytes, or all that were held for it."""
        taken: list[tuple[int, Chain]] = []
        total = 0
        while self.offered and total < length:
            if not self.mergeable and taken:
                break
            if self.mergeable and total >= self.room:
                break
            taken.append(self.offered.popleft())
            total += len(room_of(taken[-1][1]))
        return taken


def room_of(chain: Chain) -> list[int]:
    """The addresses that the device may write, in order."""
    return addresses(chain, writable=True)


def addresses(chain: Chain, *, writable: bool) -> list[int]:
    """The guest addresses of one part of a chain, byte by byte."""
    return [
        address
        for segment in chain
        if segment.writable == writable
        for address in range(segment.gpa, segment.gpa + segment.length)
    ]


class FakeTap:
    """A socket pair in the place of a tap; ``fd`` is the device's end."""

    def __init__(self) -> None:
        self._near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near.setblocking(False)
        self.far.setblocking(False)

    @property
    def fd(self) -> int:
        """What the device reads and writes."""
        return self._near.fileno()

    def put(self, frame: bytes) -> None:
        """The host sends ``frame`` (with its header) to the guest."""
        self.far.send(frame)

    def take(self) -> list[bytes]:
        """All that the guest has sent."""
        frames = []
        while True:
            try:
                frames.append(self.far.recv(MAX_FRAME + 1))
            except BlockingIOError:
                return frames

    def drop(self) -> None:
        """Throw away what the device has not read."""
        while True:
            try:
                self._near.recv(1)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Both ends."""
        self._near.close()
        self.far.close()


class NetRig:
    """Two queues of 64 in the first 16 KiB of guest memory, and their drivers."""

    DATA = 0x4000

    def __init__(self, size: int = 0x20000, record: NetState | None = None) -> None:
        self.memory = guest_memory(size)
        self.tap = FakeTap()
        state = record or NetState(iface_id="eth0", host_dev_name="tap0")
        self.device = NetDevice.restore(state, self.tap.fd)
        self.device.native.spin_ns = 0
        # A busy machine must not end a drain: only a test that says so does.
        self.device.native.max_ns = 10**12
        self.rings = (Ring(self.memory), Ring(self.memory))
        self.layouts = (RingLayout.at(0x1000, QUEUE), RingLayout.at(0x2000, QUEUE))
        self.irq = IrqLine(RegisterPage())
        self.activate()

    def activate(self, features: int = 0, *, event_idx: bool = False) -> None:
        """Lay both queues out afresh and hand them to the device."""
        self.memory.write(0, bytes(self.DATA))
        self.rx, self.tx = (
            Driver(self.memory, at, event_idx=event_idx) for at in self.layouts
        )
        for ring, at in zip(self.rings, self.layouts, strict=True):
            ring.configure(at.size, at.desc, at.avail, at.used, event_idx=event_idx)
        taken = features | (RING_EVENT_IDX if event_idx else 0)
        self.device.activate(Activation(self.memory, self.rings, taken, self.irq))

    def close(self) -> None:
        """Close the tap."""
        self.tap.close()

    @property
    def image(self) -> bytes:
        """All of guest memory."""
        return self.memory.read(0, self.memory.size)

    def send(self, frame: bytes, at: int = DATA) -> int:
        """Post ``frame`` (with its header) in one buffer at ``at``; the head."""
        self.memory.write(at, frame)
        return self.tx.add((Buffer(at, len(frame)),))

    def offer(self, count: int, length: int, at: int = 0x8000) -> list[int]:
        """Post ``count`` receive buffers of ``length`` bytes from ``at`` on."""
        return [
            self.rx.add((Buffer(at + i * length, length, writable=True),))
            for i in range(count)
        ]


def frame(
    payload: bytes = b"", *, to: bytes = b"\xff" * 6, kind: int = 0x0800
) -> bytes:
    """A frame from MAC behind an empty header."""
    return bytes(HEADER) + to + MAC + kind.to_bytes(2, "big") + payload


MRG = int(Feature.MRG_RXBUF)
