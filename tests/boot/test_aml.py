"""AML terms against encodings written out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import aml


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a 02"),
        (0xFF, "0a ff"),
        (0x100, "0b 00 01"),
        (0x1_0000, "0c 00 00 01 00"),
        (0xFFFF_FFFF, "0c ff ff ff ff"),
    ],
)
def test_integers_are_as_short_as_can_be(value: int, encoded: str) -> None:
    assert aml.integer(value) == bytes.fromhex(encoded)


def test_an_integer_of_more_than_32_bits() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        aml.integer(1 << 32)


def test_names_and_strings() -> None:
    assert aml.name("_S5", aml.string("ab")) == b"\x08_S5_\x0dab\0"
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c 41 d0 05 01")
    assert aml.eisa_id("PNP0303") == bytes.fromhex("0c 41 d0 03 03")


def test_blocks() -> None:
    assert aml.package(b"\0", b"\1") == bytes.fromhex("12 04 02 00 01")
    assert aml.device("A") == b"\x5b\x82\x05A___"
    assert aml.scope("_SB", b"\1") == b"\x10\x06_SB_\1"


def test_methods() -> None:
    told = aml.notify("VGEN", 0x80)
    assert told == b"\x86VGEN\x0a\x80"
    tested = aml.if_argument_is(22, told)
    assert tested == bytes.fromhex("a0 0c 93 68 0a 16") + told
    assert aml.method("_EVT", tested) == b"\x14\x13_EVT\x09" + tested


def test_resources() -> None:
    assert aml.io_ports(0x3F8, 8) == bytes.fromhex("47 01 f8 03 f8 03 01 08")
    assert aml.interrupt(5) == bytes.fromhex("89 06 00 03 01 05 00 00 00")
    fixed = aml.memory32_fixed(0xC000_1000, 0x1000)
    assert fixed == bytes.fromhex("86 09 00 01 00 10 00 c0 00 10 00 00")
    memory = bytes.fromhex("8a 2b 00 00 0c 02") + bytes(8)
    ends = b"".join(v.to_bytes(8, "little") for v in (0xDE000, 0xDEFFF, 0, 0x1000))
    assert aml.memory64(0xDE000, 0x1000) == memory + ends
    assert aml.resources(b"xyz") == bytes.fromhex("11 08 0a 05") + b"xyz\x79\0"


@given(st.integers(0, 300_000))
def test_a_package_length_counts_itself(size: int) -> None:
    raw = aml.scope("A", bytes(size))[1:]
    extra = raw[0] >> 6
    length = raw[0] & 0x3F
    if extra:
        assert raw[0] & 0x30 == 0
        length = (raw[0] & 0xF) | int.from_bytes(raw[1 : 1 + extra], "little") << 4
    assert length == len(raw)


def test_a_package_has_an_end() -> None:
    with pytest.raises(ValueError, match="in one AML package"):
        aml.scope("A", bytes(1 << 28))
