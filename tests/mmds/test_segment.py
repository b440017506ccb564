"""TCP segments: round trips, checksums, options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.mmds.frames import Malformed, Packet, checksum, ones_sum
from vmmd.mmds.segment import Flags, Segment, build_segment, parse_segment

A = b"\xa9\xfe\xa9\xfe"
B = b"\x0a\0\0\1"
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFF_FFFF)
SEGMENTS = st.builds(
    Segment,
    U16,
    U16,
    U32,
    U32,
    st.integers(0, 255),
    U16,
    st.none() | U16,
    st.binary(max_size=99),
)


def parse(data: bytes) -> Segment:
    return parse_segment(Packet(A, B, 6, data))


def with_options(options: bytes) -> bytes:
    """A SYN with options, its checksum right."""
    plain = Segment(1, 2, 3, 4, Flags.SYN, 5)
    data = bytearray(build_segment(plain, A, B) + options)
    data[12] = (20 + len(options)) // 4 << 4
    data[16:18] = b"\0\0"
    pseudo = A + B + b"\0\6" + len(data).to_bytes(2)
    data[16:18] = checksum(pseudo + bytes(data)).to_bytes(2)
    return bytes(data)


@given(SEGMENTS)
def test_segments_come_back(segment: Segment) -> None:
    assert parse(build_segment(segment, A, B)) == segment


@given(SEGMENTS, st.data())
def test_a_changed_byte_is_seen(segment: Segment, data: st.DataObject) -> None:
    built = bytearray(build_segment(segment, A, B))
    at = data.draw(st.integers(0, len(built) - 1))
    built[at] ^= data.draw(st.integers(1, 255))
    pseudo = A + B + b"\0\6" + len(built).to_bytes(2)
    if int.from_bytes(built[16:18]) % 0xFFFF == ones_sum(pseudo):
        return  # by chance what an offloading device leaves
    with pytest.raises(Malformed):
        parse(bytes(built))


@given(SEGMENTS)
def test_a_sum_that_is_left_to_the_device_is_taken(segment: Segment) -> None:
    built = bytearray(build_segment(segment, A, B))
    pseudo = A + B + b"\0\6" + len(built).to_bytes(2)
    built[16:18] = ones_sum(pseudo).to_bytes(2)
    assert parse(bytes(built)) == segment


@given(st.binary(max_size=60))
def test_any_bytes_are_a_segment_or_malformed(data: bytes) -> None:
    try:
        parse(data)
    except Malformed:
        return


@pytest.mark.parametrize(
    ("options", "mss"),
    [
        (b"", None),
        (bytes.fromhex("020405b4"), 1460),
        (bytes.fromhex("01010402020405b4"), 1460),
        (bytes.fromhex("00000000020405b4"), None),
        (bytes.fromhex("0303070100000000"), None),
        (bytes.fromhex("080a0000000000000000010103030700"), None),
    ],
)
def test_options(options: bytes, mss: int | None) -> None:
    assert parse(with_options(options)).mss == mss


@pytest.mark.parametrize("options", ["03000000", "03010000", "01010102", "02080000"])
def test_options_that_do_not_fit_are_malformed(options: str) -> None:
    with pytest.raises(Malformed):
        parse(with_options(bytes.fromhex(options)))


@pytest.mark.parametrize(("at", "value"), [(12, 0x40), (12, 0xF0)])
def test_a_header_that_does_not_fit_is_malformed(at: int, value: int) -> None:
    data = bytearray(with_options(b""))
    data[at] = value
    with pytest.raises(Malformed):
        parse(bytes(data))


def test_how_much_of_the_sequence_a_segment_takes() -> None:
    bare = Segment(1, 2, 3, 4, Flags.SYN | Flags.FIN, 5, None, b"abc")
    assert bare.length == 5
    assert bare.fin
    assert Segment(1, 2, 3, 4, Flags.ACK, 5).length == 0
