"""GDT, IDT and page tables as the boot processor is entered with."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot.tables import boot_tables, descriptor


def test_long_mode() -> None:
    writes = dict(boot_tables("linux64"))
    assert struct.unpack("<4Q", writes[0x500]) == (
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x008F_8B00_0000_FFFF,
    )
    assert writes[0x520] == bytes(8)
    assert int.from_bytes(writes[0x9000], "little") == 0xA003
    assert int.from_bytes(writes[0xA000], "little") == 0xB003
    pages = struct.unpack("<512Q", writes[0xB000])
    assert [entry & ~0x1FFFFF for entry in pages] == [i << 21 for i in range(512)]
    assert {entry & 0x1FFFFF for entry in pages} == {0x83}


def test_pvh_has_no_paging() -> None:
    writes = dict(boot_tables("pvh"))
    assert sorted(writes) == [0x500, 0x520]
    assert struct.unpack("<4Q", writes[0x500]) == (
        0,
        0x00CF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x0000_8B00_0000_0067,
    )


@given(
    st.integers(0, 0xFFFF).map(lambda flags: flags & 0xF0FF),
    st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 0xFFFFF),
)
def test_a_descriptor_holds_its_fields(flags: int, base: int, limit: int) -> None:
    raw = descriptor(flags, base, limit)
    assert (raw >> 16 & 0xFF_FFFF) | (raw >> 56 << 24) == base
    assert (raw & 0xFFFF) | (raw >> 48 & 0xF) << 16 == limit
    assert raw >> 40 & 0xF0FF == flags
