"""The checksum, against a bit-by-bit one and the values of RFC 3720, B.4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd._native import lib
from vmmd.state.crc32c import crc32c

if TYPE_CHECKING:
    from random import Random

THREE_LANES = 3 * 1360


def bit_by_bit(data: bytes, crc: int = 0) -> int:
    """The definition: reflected 0x82F63B78, all ones before and after."""
    crc ^= 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE306_9283),
        (bytes(32), 0x8A91_36AA),
        (b"\xff" * 32, 0x62A8_AB43),
        (bytes(range(32)), 0x46DD_794E),
        (bytes(range(31, -1, -1)), 0x113F_DB5C),
    ],
)
def test_known_values(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
    assert bit_by_bit(data) == checksum


@given(
    st.randoms(use_true_random=False),
    st.one_of(
        st.integers(0, 64),
        st.integers(THREE_LANES - 9, THREE_LANES + 9),
        st.integers(2 * THREE_LANES, 2 * THREE_LANES + 9),
    ),
    st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 7),
)
def test_both_ways_are_the_definition(
    random: Random, length: int, crc: int, offset: int
) -> None:
    data = random.randbytes(offset + length)
    expected = bit_by_bit(data[offset:], crc)
    assert crc32c(memoryview(data)[offset:], crc) == expected
    assert lib.crc32c_by_table(crc, data[offset:], length) == expected


@given(st.binary(max_size=5000), st.integers(0, 5000))
def test_parts_give_what_the_whole_gives(data: bytes, at: int) -> None:
    assert crc32c(data[at:], crc32c(data[:at])) == crc32c(data)


def test_every_part_of_three_lanes_counts() -> None:
    whole = bytearray(THREE_LANES + 16)
    clean, seen = crc32c(whole), set()
    for at in range(0, len(whole), 7):
        whole[at] ^= 1
        seen.add(crc32c(whole))
        whole[at] ^= 1
    assert clean not in seen
    assert len(seen) == len(range(0, len(whole), 7))
