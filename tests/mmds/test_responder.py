"""Frames in, frames out: ARP, whole conversations, corruption, bounds."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tcp_client import OWN_PORT, PORT, TcpClient
from vmmd.http.serde import dump
from vmmd.mmds.frames import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    PROTOCOL_TCP,
    Frame,
    Packet,
    build_frame,
    build_packet,
    parse_frame,
    parse_packet,
)
from vmmd.mmds.responder import MAC, MAX_PENDING_REPLIES, Responder
from vmmd.mmds.segment import Flags, Segment, build_segment, parse_segment
from vmmd.mmds.service import Mmds

GUEST_MAC = bytes.fromhex("0242c0a80001")
GUEST = b"\x0a\0\0\x02"
SERVICE = b"\xa9\xfe\xa9\xfe"
STEP_NS = 20_000_000
REQUEST = b"GET /a HTTP/1.1\r\n\r\n"
ANSWER_END = b"\r\n\r\n" + b"v" * 3000


def responder() -> Responder:
    mmds = Mmds(51_200, "vm", dump, os.urandom)
    mmds.store.put({"a": "v" * 3000})
    return Responder(mmds, SERVICE)


def frame(segment: Segment) -> bytes:
    """A frame of the guest's with a segment in it."""
    payload = build_segment(segment, GUEST, SERVICE)
    packet = Packet(GUEST, SERVICE, PROTOCOL_TCP, payload)
    data = build_packet(packet)
    return build_frame(Frame(MAC, GUEST_MAC, ETHERTYPE_IPV4, data))


def taken(made: Responder) -> list[bytes]:
    """All frames that a responder has for the guest."""
    return list(itertools.takewhile(bool, iter(made.take, None)))


def segments(frames: list[bytes]) -> list[Segment]:
    """The segments in frames, whose addresses are those of the two."""
    found = []
    for data in frames:
        ethernet = parse_frame(data)
        assert (ethernet.destination, ethernet.source) == (GUEST_MAC, MAC)
        packet = parse_packet(ethernet.payload)
        assert (packet.source, packet.destination) == (SERVICE, GUEST)
        found.append(parse_segment(packet))
    return found


def syn(port: int) -> Segment:
    return Segment(port, PORT, 7, 0, Flags.SYN, 65_535, 1460)


def question(target: bytes = SERVICE) -> bytes:
    head = bytes.fromhex("0001080006040001")
    payload = head + GUEST_MAC + GUEST + bytes(6) + target
    return build_frame(Frame(b"\xff" * 6, GUEST_MAC, ETHERTYPE_ARP, payload))


def test_who_has_is_answered() -> None:
    made = responder()
    made.receive(question(), 0)
    made.receive(question(b"\x0a\0\0\1"), 0)
    (reply,) = taken(made)
    assert parse_frame(reply).payload[8:18] == MAC + SERVICE
    assert made.timeout_ns(0) is None
    for _ in range(100):
        made.receive(question(), 0)
    assert len(taken(made)) == MAX_PENDING_REPLIES


def talk(made: Responder, client: TcpClient, noise: list[tuple[int, int, int]]) -> None:
    """A conversation in which some frames of the guest's are changed on the way.

    ``noise``: which frame, which byte of it, by what.
    """
    changes = {number: (at, by) for number, at, by in noise}
    numbers = itertools.count()
    for now_ns in range(0, 4000 * STEP_NS, STEP_NS):
        client.drain()
        for segment in client.segments(now_ns):
            data = bytearray(frame(segment))
            at, by = changes.get(next(numbers), (0, 0))
            data[14 + at % (len(data) - 14)] ^= by
            made.receive(bytes(data), now_ns)
        if made.timeout_ns(now_ns) == 0:
            made.tick(now_ns)
        for segment in segments(taken(made)):
            client.receive(segment, now_ns)
        if made.statistics()["connections_destroyed"]:
            return
    raise AssertionError("they talk for ever")


def test_a_request_is_answered() -> None:
    made, client = responder(), TcpClient(REQUEST, close_after=len(ANSWER_END))
    talk(made, client, [])
    assert client.read.startswith(b"HTTP/1.1 200 \r\n")
    assert client.read.endswith(ANSWER_END)
    counted = made.statistics()
    assert counted["connections_created"] == counted["connections_destroyed"] == 1
    assert counted["rx_accepted"] == counted["rx_count"]
    assert counted["tx_frames"] == counted["tx_count"] > 3
    assert counted["tx_bytes"] > 3000
    assert counted["rx_accepted_err"] == counted["rx_bad_eth"] == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 79), st.integers(1, 255)),
        max_size=6,
    )
)
@settings(max_examples=2000 if os.environ.get("CI") else settings().max_examples)
def test_wrong_checksums_are_dropped_and_sent_again(
    noise: list[tuple[int, int, int]],
) -> None:
    """A changed byte anywhere behind the Ethernet header costs time alone.

    One that makes the checksum what an offloading device would leave is let
    through, and has changed nothing else.
    """
    made = responder()
    client = TcpClient(REQUEST, cuts=(9,), close_after=len(ANSWER_END))
    talk(made, client, noise)
    assert client.read.endswith(ANSWER_END)
    assert client.read.count(b"HTTP/1.1") == 1


def test_what_gets_lost_is_due_after_a_time() -> None:
    made = responder()
    made.receive(frame(syn(9)), 100)
    (first,) = taken(made)
    wait_ns = made.timeout_ns(100)
    assert wait_ns is not None
    assert made.timeout_ns(100 + 2 * wait_ns) == 0
    made.tick(100 + wait_ns - 1)
    assert made.take() is None
    made.tick(100 + wait_ns)
    assert taken(made) == [first]


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (b"", "rx_bad_eth"),
        (bytes(13), "rx_bad_eth"),
        (build_frame(Frame(MAC, MAC, 0x86DD, bytes(60))), "rx_accepted_err"),
        (build_frame(Frame(MAC, MAC, ETHERTYPE_IPV4, b"")), "rx_accepted_err"),
        (build_frame(Frame(MAC, MAC, ETHERTYPE_ARP, b"")), "rx_accepted_err"),
        (
            build_frame(
                Frame(
                    MAC,
                    MAC,
                    ETHERTYPE_IPV4,
                    build_packet(Packet(GUEST, SERVICE, 17, bytes(20))),
                )
            ),
            "rx_accepted_unusual",
        ),
        (
            build_frame(
                Frame(
                    MAC,
                    MAC,
                    ETHERTYPE_IPV4,
                    build_packet(Packet(GUEST, SERVICE, PROTOCOL_TCP, bytes(9))),
                )
            ),
            "rx_accepted_err",
        ),
    ],
)
def test_what_is_malformed_is_dropped_and_counted(data: bytes, counter: str) -> None:
    made = responder()
    made.receive(data, 0)
    assert made.take() is None
    assert made.statistics()[counter] == 1


@given(st.lists(st.binary(max_size=90), max_size=5), st.binary(max_size=60))
def test_no_bytes_are_fatal(frames: list[bytes], tail: bytes) -> None:
    made = responder()
    good = frame(replace(syn(OWN_PORT), payload=b""))
    for data in (*frames, good, good[: len(tail)] + tail, good + tail):
        made.receive(data, 0)
    assert len(taken(made)) <= 10
