"""The zero page, field by field."""

from __future__ import annotations

import struct

from tests.helpers.kernels import BytesSource, BzImage
from vmmd.boot import bzimage, e820, layout
from vmmd.boot.image import FileSegment
from vmmd.boot.params import zero_page

MAP = e820.memory_map(layout.memory_regions(256))


def u32(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 4], "little")


def test_for_an_elf_kernel() -> None:
    page = zero_page(b"", MAP, 77, None)
    assert len(page) == 4096
    assert page[0x70:0x78] == (0xE0000).to_bytes(8, "little")
    assert page[0x1FE:0x200] == b"\x55\xaa"
    assert page[0x202:0x206] == b"HdrS"
    assert page[0x210] == 0xFF
    assert (u32(page, 0x218), u32(page, 0x21C)) == (0, 0)
    assert (u32(page, 0x228), u32(page, 0x238)) == (0x20000, 77)
    assert u32(page, 0x230) == 0x0100_0000


def test_the_memory_map() -> None:
    page = zero_page(b"", MAP, 1, None)
    assert page[0x1E8] == 4
    entries = list(struct.iter_unpack("<QQI", page[0x2D0 : 0x2D0 + 80]))
    assert entries == [(e.gpa, e.size, e.kind) for e in MAP]
    assert page[0x2D0 + 80 :] == bytes(4096 - 0x2D0 - 80)


def test_a_bzimage_s_header_is_kept_but_for_the_loader_s_fields() -> None:
    data = BzImage().build()
    image = bzimage.load(BytesSource(data), layout.memory_regions(256))
    page = zero_page(image.setup_header, MAP, 77, FileSegment(0, 0x700_0000, 999))
    assert (u32(page, 0x218), u32(page, 0x21C)) == (0x700_0000, 999)
    assert (u32(page, 0x228), u32(page, 0x238)) == (0x20000, 77)
    assert page[0x210] == 0xFF
    theirs = [*range(0x1F1, 0x210), *range(0x211, 0x218), *range(0x22C, 0x238)]
    theirs += range(0x23C, 0x268)
    assert all(page[at] == data[at] for at in theirs)
