"""An interface that is being pumped: the guest's side of it, and the host's."""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.helpers.net_model import HEADER, NetRig, frame
from tests.helpers.network import own_network, set_up, wire
from vmmd.loop.eventfd import EventFd
from vmmd.loop.net import Nic
from vmmd.loop.tap import Tap
from vmmd.virtio.net import NetDevice, NetState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")
TAP = "t0"
BUFFER = 0x8000


class SocketTap(Tap):
    """A socket pair in a tap's place: it can be full. Keeps what it was told."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.far.setblocking(False)
        super().__init__("pair", near.detach())
        self.offloads: list[int] = []

    def set_offloads(self, offloads: int) -> None:
        self.offloads.append(offloads)

    def close(self) -> None:
        super().close()
        self.far.close()


@dataclass
class Guest:
    """An interface that is being pumped, and the guest's side of it.

    It is the pump's transport, too.
    """

    nic: Nic
    lines: list[str]
    kick: EventFd = field(default_factory=EventFd)
    interrupt: EventFd = field(default_factory=EventFd)
    rig: NetRig = field(default_factory=NetRig)
    broken: int = 0

    def __post_init__(self) -> None:
        self.rig.device = self.nic.device
        self.rig.device.native.spin_ns = 0
        self.rig.irq.fd = self.interrupt.fd

    def mark_broken(self) -> None:
        self.broken += 1

    def send(self, count: int, payload: bytes = b"x" * 50) -> None:
        """Post frames and kick."""
        for _ in range(count):
            self.rig.send(frame(payload, kind=0x88B5))
        self.kick.signal()

    def offer(self, count: int) -> None:
        """Post receive buffers of 2 KiB and kick."""
        self.rig.offer(count, 2048, BUFFER)
        self.kick.signal()

    async def until(self, *, sent: int = 0, received: int = 0) -> None:
        """Wait for interrupts until so many frames in all were taken and given."""
        rig = self.rig
        with trio.fail_after(5):
            while rig.tx.used_index() < sent or rig.rx.used_index() < received:
                await self.interrupt.wait()

    def received(self, count: int) -> list[bytes]:
        """What the first buffers hold, without headers, up to their padding."""
        memory = self.rig.memory
        return [
            memory.read(BUFFER + i * 2048 + HEADER, 64).rstrip(b"\0")
            for i in range(count)
        ]

    async def close(self) -> None:
        await self.nic.aclose()
        self.rig.close()
        self.kick.close()
        self.interrupt.close()


def guest_on(tap: Tap, state: NetState | None = None) -> Guest:
    lines: list[str] = []
    record = state or NetState(iface_id="eth0", host_dev_name=tap.name)
    return Guest(Nic(NetDevice.restore(record, tap.fd), tap, lines.append), lines)


@asynccontextmanager
async def pumped(tap: Tap, state: NetState | None = None) -> AsyncIterator[Guest]:
    """A guest whose driver is up, its interface pumped."""
    guest = guest_on(tap, state)
    try:
        guest.rig.activate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.nic.pump, guest, guest.kick)
            yield guest
            nursery.cancel_scope.cancel()
    finally:
        await guest.close()


@dataclass
class Host:
    """The tap TAP, which is up, and the host's side of it."""

    tap: Tap
    packets: socket.socket

    def send(self, *numbers: int) -> None:
        """Frames for the guest."""
        for number in numbers:
            self.packets.send(ethernet(number))

    def got(self) -> list[bytes]:
        """What the guest has sent."""
        found: list[bytes] = []
        while True:
            try:
                data, (_, _, kind, *_) = self.packets.recvfrom(4096)
            except BlockingIOError:
                return found
            if kind != socket.PACKET_OUTGOING:
                found.append(data)


@contextmanager
def tap_host() -> Iterator[Host]:
    """A host in a network of its own. (A tap that is set up before it is opened
    takes no frames for up to a second.)"""
    with own_network(), closing(Tap.open(TAP)) as tap:
        set_up(TAP)
        with wire(TAP) as packets:
            yield Host(tap, packets)


def ethernet(number: int) -> bytes:
    """A frame of the host's."""
    head = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5"
    return head + f"frame {number} ".encode() * 5


class Wakes(trio.abc.Instrument):
    """Counts how often tasks of a pump ran."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if "Nic." in task.name:
            self.ran[task.name.rpartition(".")[2]] += 1


@asynccontextmanager
async def counted() -> AsyncIterator[Wakes]:
    """What runs from when all is quiet until it is again."""
    wakes = Wakes()
    await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(wakes)
    try:
        yield wakes
        await trio.testing.wait_all_tasks_blocked()
    finally:
        trio.lowlevel.remove_instrument(wakes)
