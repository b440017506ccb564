"""The service on one interface: frames from the guest in, frames for it out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from . import arp
from .counters import Counters
from .frames import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    PROTOCOL_TCP,
    Frame,
    Malformed,
    Packet,
    build_frame,
    build_packet,
    parse_frame,
    parse_packet,
)
from .http import take_request
from .listener import Listener
from .segment import build_segment

if TYPE_CHECKING:
    from .service import Mmds

MAC = bytes.fromhex("060123456701")
MAX_PENDING_REPLIES = 16
_SEQ_BYTES = 4


class Responder:
    """Answers for one IPv4 address (4 bytes) on one interface.

    Nothing the guest sends is fatal: what is malformed is dropped and counted.
    All that is kept is bounded: 30 connections of 2,500 bytes in and one answer
    out, 100 resets, 16 ARP replies.
    """

    def __init__(self, mmds: Mmds, ipv4: bytes) -> None:
        self._mmds = mmds
        self._ipv4 = ipv4
        self._counters = Counters()
        self._replies: deque[bytes] = deque(maxlen=MAX_PENDING_REPLIES)
        self._guest_mac = MAC
        self._listener = Listener(self._answer, self._initial_seq, self._counters)

    def receive(self, frame: bytes, now_ns: int) -> None:
        """Take a frame of the guest's; ``now_ns`` is monotonic, as in all calls."""
        counters = self._counters
        counters.rx_accepted += 1
        try:
            ethernet = parse_frame(frame)
        except Malformed:
            counters.rx_bad_eth += 1
            return
        try:
            self._take(ethernet, now_ns)
        except Malformed:
            counters.rx_accepted_err += 1

    def take(self) -> bytes | None:
        """The next frame for the guest; None when there is none for now."""
        frame = self._replies.popleft() if self._replies else self._next_packet()
        if frame is not None:
            self._counters.tx_count += 1
            self._counters.tx_frames += 1
            self._counters.tx_bytes += len(frame)
        return frame

    def timeout_ns(self, now_ns: int) -> int | None:
        """How long until ``tick`` has something to do; None: not by itself."""
        deadline_ns = self._listener.deadline_ns()
        return None if deadline_ns is None else max(0, deadline_ns - now_ns)

    def tick(self, now_ns: int) -> None:
        """Time has passed: segments that were lost may be due again."""
        self._listener.tick(now_ns)

    def statistics(self) -> dict[str, int]:
        """Counters since the start, by the names of Firecracker's metrics."""
        return self._counters.as_dict()

    def _take(self, frame: Frame, now_ns: int) -> None:
        if frame.ethertype == ETHERTYPE_ARP:
            self._take_arp(frame.payload)
        elif frame.ethertype == ETHERTYPE_IPV4:
            self._take_packet(frame, now_ns)
        else:
            raise Malformed("neither ARP nor IPv4")

    def _take_arp(self, payload: bytes) -> None:
        request = arp.parse_request(payload)
        if request.target == self._ipv4:
            self._replies.append(arp.build_reply(request, MAC))

    def _take_packet(self, frame: Frame, now_ns: int) -> None:
        packet = parse_packet(frame.payload)
        if packet.destination != self._ipv4 or packet.protocol != PROTOCOL_TCP:
            self._counters.rx_accepted_unusual += 1
            return
        self._guest_mac = frame.source
        self._listener.receive(packet, now_ns)

    def _next_packet(self) -> bytes | None:
        found = self._listener.next_segment()
        if found is None:
            return None
        (address, _), segment = found
        payload = build_segment(segment, self._ipv4, address)
        packet = Packet(self._ipv4, address, PROTOCOL_TCP, payload)
        frame = Frame(self._guest_mac, MAC, ETHERTYPE_IPV4, build_packet(packet))
        return build_frame(frame)

    def _answer(self, buffer: bytearray, now_ns: int) -> bytes | None:
        request = take_request(buffer)
        return None if request is None else self._mmds.answer(request, now_ns)

    def _initial_seq(self) -> int:
        return int.from_bytes(self._mmds.random_bytes(_SEQ_BYTES), "big")
