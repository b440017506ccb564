"""Ethernet and IPv4: round trips, checksums, and what is malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.mmds.frames import (
    ETHERTYPE_IPV4,
    Frame,
    Malformed,
    Packet,
    build_frame,
    build_packet,
    checksum,
    ones_sum,
    parse_frame,
    parse_packet,
)

MACS = st.binary(min_size=6, max_size=6)
ADDRESSES = st.binary(min_size=4, max_size=4)
PACKETS = st.builds(
    Packet, ADDRESSES, ADDRESSES, st.integers(0, 255), st.binary(max_size=100)
)


def plain_checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for high, low in zip(data[::2], (data + b"\0")[1::2], strict=True):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(min_size=1, max_size=99).filter(any))
def test_the_checksum_is_rfc_1071s(data: bytes) -> None:
    assert checksum(data) == plain_checksum(data)


def test_the_sum_of_nothing_is_zero() -> None:
    assert ones_sum(b"") == ones_sum(b"\0\0\0") == 0
    assert ones_sum(b"\xff\xff") == 0


@given(st.builds(Frame, MACS, MACS, st.integers(0, 0xFFFF), st.binary(max_size=60)))
def test_frames_come_back(frame: Frame) -> None:
    assert parse_frame(build_frame(frame)) == frame


@given(PACKETS, st.binary(max_size=30))
def test_packets_come_back_without_their_padding(packet: Packet, pad: bytes) -> None:
    assert parse_packet(build_packet(packet) + pad) == packet


@given(PACKETS, st.integers(0, 19), st.integers(1, 255))
def test_a_changed_header_is_seen(packet: Packet, at: int, change: int) -> None:
    data = bytearray(build_packet(packet))
    data[at] ^= change
    with pytest.raises(Malformed):
        parse_packet(bytes(data))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_packet_or_malformed(data: bytes) -> None:
    for parse in (parse_frame, parse_packet):
        try:
            parse(data)
        except Malformed:
            continue


def header(**changes: int) -> bytes:
    """A header with some of its bytes changed and its checksum right."""
    data = bytearray(build_packet(Packet(b"\1\1\1\1", b"\2\2\2\2", 6, b"payload!")))
    for name, value in changes.items():
        data[int(name[1:])] = value
    data[10:12] = b"\0\0"
    size = (data[0] & 15) * 4
    data[10:12] = checksum(bytes(data[:size])).to_bytes(2)
    return bytes(data)


def test_options_are_skipped() -> None:
    assert parse_packet(header(b0=0x46)).payload == b"oad!"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x45" * 19,
        header(b0=0x55),
        header(b0=0x44),
        header(b3=19),
        header(b3=29),
        header(b6=0x20),
        header(b7=1),
    ],
)
def test_what_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_packet(data)


def test_a_short_frame_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_frame(bytes(13))
    assert parse_frame(bytes(12) + b"\x08\0").ethertype == ETHERTYPE_IPV4
