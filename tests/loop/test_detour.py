"""Frames that do not go to the tap, and what answers them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import trio

from tests.helpers.net_model import HEADER, NetRig, frame
from tests.helpers.nic import BUFFER, SocketTap, pumped
from vmmd.loop.net import DETOURS_A_LOOK

MMDS = bytes((169, 254, 169, 254))


@dataclass
class Service:
    """Answers each frame with its own bytes, now or ``delay_ns`` later."""

    delay_ns: int = 0
    taken: list[bytes] = field(default_factory=list)
    replies: deque[bytes] = field(default_factory=deque)
    due_ns: int | None = None

    def receive(self, data: bytes, now_ns: int) -> None:
        self.taken.append(data)
        if self.delay_ns:
            self.due_ns = now_ns + self.delay_ns
        else:
            self.replies.append(data)

    def take(self) -> bytes | None:
        return self.replies.popleft() if self.replies else None

    def timeout_ns(self, now_ns: int) -> int | None:
        return None if self.due_ns is None else max(0, self.due_ns - now_ns)

    def tick(self, now_ns: int) -> None:
        if self.due_ns is not None and now_ns >= self.due_ns:
            self.due_ns = None
            self.replies.extend(self.taken)


def arp(target: bytes) -> bytes:
    """A question for an address, 28 bytes with a header of 12 in front."""
    body = b"\0\1\x08\0\6\4\0\1" + b"\2" + bytes(5) + bytes(10) + target
    return frame(body + bytes(18), kind=0x0806)


async def test_frames_for_the_service_are_answered_by_it() -> None:
    pair = SocketTap()
    async with pumped(pair) as guest:
        service = Service()
        guest.nic.answer_by(service, MMDS)
        question = arp(MMDS)
        guest.rig.offer(1, 2048, BUFFER)
        for i, data in enumerate((question, question, frame(b"o" * 50))):
            guest.rig.send(data, NetRig.DATA + i * 256)
        guest.kick.signal()
        await guest.until(sent=3, received=1)
        assert pair.far.recv(4096) == frame(b"o" * 50)
        assert service.taken == [question[HEADER:]] * 2
        assert guest.received(1) == [question[HEADER:].rstrip(b"\0")]
        guest.rig.offer(1, 2048, BUFFER + 2048)
        guest.kick.signal()  # the second answer waits for a buffer
        await guest.until(received=2)
        guest.nic.answer_by(None, None)
        guest.rig.send(question)
        guest.kick.signal()
        await guest.until(sent=4)
        assert pair.far.recv(4096) == question


async def test_the_service_answers_when_its_time_has_come() -> None:
    async with pumped(SocketTap()) as guest:
        guest.nic.answer_by(Service(delay_ns=5_000_000), MMDS)
        guest.offer(1)
        guest.rig.send(arp(MMDS))
        guest.kick.signal()
        await guest.until(sent=1, received=1)


async def test_a_guest_that_floods_the_service_does_not_hold_the_loop() -> None:
    async with pumped(SocketTap()) as guest:
        service = Service()
        guest.nic.answer_by(service, MMDS)
        while len(guest.rig.tx.free):
            guest.rig.send(arp(MMDS))
        guest.kick.signal()
        seen = [0]
        while guest.rig.tx.used_index() < 64:
            await trio.lowlevel.checkpoint()
            seen.append(len(service.taken))
        assert max(b - a for a, b in pairwise(seen)) <= 2 * DETOURS_A_LOOK


class Slow(Service):
    """What the guest asks for takes two milliseconds to say."""

    def receive(self, data: bytes, now_ns: int) -> None:
        end_ns = time.monotonic_ns() + 2_000_000
        while time.monotonic_ns() < end_ns:
            pass
        super().receive(data, now_ns)


async def test_answers_that_take_long_are_one_a_look() -> None:
    async with pumped(SocketTap()) as guest:
        service = Slow()
        guest.nic.answer_by(service, MMDS)
        for _ in range(16):
            guest.rig.send(arp(MMDS))
        guest.kick.signal()
        seen = [0]
        while guest.rig.tx.used_index() < 16:
            await trio.lowlevel.checkpoint()
            seen.append(len(service.taken))
        assert max(b - a for a, b in pairwise(seen)) <= 2
