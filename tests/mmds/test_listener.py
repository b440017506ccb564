"""The connections of an interface: whom a segment belongs to, turns, bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.tcp_client import PORT, TcpClient
from vmmd.mmds.counters import Counters
from vmmd.mmds.frames import PROTOCOL_TCP, Malformed, Packet
from vmmd.mmds.http import take_request
from vmmd.mmds.listener import (
    IDLE_NS,
    MAX_CONNECTIONS,
    MAX_PENDING_RESETS,
    Listener,
)
from vmmd.mmds.segment import Flags, Segment, build_segment

GUEST, SERVICE = b"\x0a\0\0\x02", b"\xa9\xfe\xa9\xfe"
ANSWER = b"v" * 4000


def answer(buffer: bytearray, _now_ns: int) -> bytes | None:
    return None if take_request(buffer) is None else ANSWER


class Rig:
    """A listener, and packets for it."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.listener = Listener(answer, lambda: 0xFFFF_FFFF, self.counters)

    def give(self, segment: Segment, now_ns: int = 0, source: bytes = GUEST) -> None:
        payload = build_segment(segment, source, SERVICE)
        packet = Packet(source, SERVICE, PROTOCOL_TCP, payload)
        self.listener.receive(packet, now_ns)

    def taken(self) -> list[Segment]:
        """All segments that there are to send."""
        found = []
        while (item := self.listener.next_segment()) is not None:
            (_, port), segment = item
            assert port == segment.destination_port
            found.append(segment)
        return found


@pytest.fixture
def rig() -> Rig:
    return Rig()


def syn(port: int) -> Segment:
    return Segment(port, PORT, 7, 0, Flags.SYN, 65_535, 1460)


def test_a_full_house_resets_until_somebody_is_idle(rig: Rig) -> None:
    for port in range(MAX_CONNECTIONS):
        rig.give(syn(1000 + port))
    assert len(rig.taken()) == len(rig.listener) == MAX_CONNECTIONS
    rig.give(syn(5000), IDLE_NS - 1)
    (refused,) = rig.taken()
    assert refused.flags == Flags.RST | Flags.ACK
    assert (refused.ack, refused.destination_port) == (8, 5000)
    rig.give(syn(5000), IDLE_NS)
    evicted, opened = rig.taken()
    assert (evicted.flags & Flags.RST, evicted.destination_port) == (Flags.RST, 1000)
    assert opened.flags == Flags.SYN | Flags.ACK
    assert rig.counters.connections_created == MAX_CONNECTIONS + 1
    assert rig.counters.connections_destroyed == 1
    assert len(rig.listener) == MAX_CONNECTIONS


def test_the_one_without_progress_for_longest_makes_room(rig: Rig) -> None:
    for port in range(MAX_CONNECTIONS):
        rig.give(syn(1000 + port), now_ns=port)
    rig.taken()
    rig.give(Segment(1000, PORT, 8, 0, Flags.ACK, 100), now_ns=99)  # gets on
    rig.give(syn(5000), 2 * IDLE_NS)
    evicted = next(out for out in rig.taken() if out.flags & Flags.RST)
    assert evicted.destination_port == 1001


def test_other_ports_are_refused(rig: Rig) -> None:
    rig.give(replace(syn(9), destination_port=443))
    (refused,) = rig.taken()
    assert (refused.source_port, refused.flags) == (443, Flags.RST | Flags.ACK)
    assert rig.counters.rx_accepted_err == 1
    assert rig.counters.rx_count == 0


def test_strays_are_reset_within_bounds_and_resets_are_not(rig: Rig) -> None:
    rig.give(replace(syn(9), flags=Flags.ACK, ack=5))
    rig.give(replace(syn(9), flags=Flags.RST))
    (reset,) = rig.taken()
    assert (reset.seq, reset.flags) == (5, Flags.RST)
    for _ in range(2 * MAX_PENDING_RESETS):
        rig.give(replace(syn(9), flags=Flags.ACK))
    assert len(rig.taken()) == MAX_PENDING_RESETS
    assert len(rig.listener) == 0


def test_connections_are_told_apart_by_address_and_port(rig: Rig) -> None:
    for source, port in ((GUEST, 1), (GUEST, 2), (b"\x0a\0\0\x03", 1), (GUEST, 1)):
        rig.give(syn(port), source=source)
    assert len(rig.listener) == rig.counters.connections_created == 3


def test_connections_take_turns(rig: Rig) -> None:
    clients = {1: TcpClient(b"q\n\n"), 2: TcpClient(b"q\n\n")}

    def send(port: int) -> None:
        for segment in clients[port].segments(0):
            rig.give(replace(segment, source_port=port))

    for port, client in clients.items():
        send(port)
        (synack,) = rig.taken()
        client.receive(synack, 0)
    for port in clients:
        send(port)
    ports = [out.destination_port for out in rig.taken() if out.payload]
    assert ports == [1, 2, 1, 2, 1, 2]


def test_a_timer_is_the_next_of_all(rig: Rig) -> None:
    assert rig.listener.deadline_ns() is None
    rig.give(syn(1), 100)
    rig.taken()
    first_ns = rig.listener.deadline_ns()
    rig.give(syn(2), 200)
    rig.taken()
    assert rig.listener.deadline_ns() == first_ns
    assert first_ns is not None
    rig.listener.tick(first_ns)
    assert [out.destination_port for out in rig.taken()] == [1]
    assert rig.listener.deadline_ns() == first_ns + 100


def test_what_is_no_segment_is_malformed(rig: Rig) -> None:
    with pytest.raises(Malformed):
        rig.listener.receive(Packet(GUEST, SERVICE, PROTOCOL_TCP, b"short"), 0)
