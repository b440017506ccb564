"""PVH: the note that names the entry, and hvm_start_info."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.kernels import note
from vmmd.boot import e820, layout
from vmmd.boot.image import BootError, FileSegment
from vmmd.boot.pvh import find_entry, start_info

XEN = note(b"Xen\0", 18, (0x1234).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("notes", "entry"),
    [
        (b"", None),
        (XEN, 0x1234),
        (note(b"Xen\0", 17, bytes(4)) + XEN, 0x1234),
        (note(b"GNU\0", 18, bytes(5)) + note(b"Linux\0", 1, b"x") + XEN, 0x1234),
        (note(b"Xen\0", 18, (0x1234).to_bytes(8, "little")), 0x1234),
        (note(b"Xen", 18, bytes(4)), None),
        (XEN[:8], None),
    ],
)
def test_find_entry(notes: bytes, entry: int | None) -> None:
    assert find_entry(notes) == entry


@pytest.mark.parametrize("notes", [note(b"Xen\0", 18, b"abc"), XEN[:-1]])
def test_a_note_without_an_address(notes: bytes) -> None:
    with pytest.raises(BootError, match="Invalid PVH note header"):
        find_entry(notes)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_notes(before: bytes, after: bytes) -> None:
    for notes in (before + XEN + after, before):
        try:
            found = find_entry(notes)
        except BootError:
            continue
        assert found is None or 0 <= found < 1 << 32


def test_start_info() -> None:
    regions = layout.memory_regions(6144)
    writes = dict(start_info(e820.memory_map(regions), FileSegment(0, 0x5000000, 777)))
    info = struct.unpack("<IIIIQQQQII", writes[layout.PVH_START_INFO])
    assert info == (0x336EC578, 1, 0, 1, 0x6040, 0x20000, 0xE0000, 0x7000, 5, 0)
    module = struct.unpack("<QQQQ", writes[layout.PVH_MODLIST])
    assert module == (0x5000000, 777, 0, 0)
    entries = list(struct.iter_unpack("<QQII", writes[layout.PVH_MEMMAP]))
    assert entries == [
        (0, 0x9FC00, 1, 0),
        (0x9FC00, 0x40400, 2, 0),
        (0xEEC0_0000, 256 << 20, 2, 0),
        (0x10_0000, (3 << 30) - 0x10_0000, 1, 0),
        (4 << 30, 3 << 30, 1, 0),
    ]


def test_start_info_without_an_initrd() -> None:
    writes = dict(start_info(e820.memory_map(layout.memory_regions(128)), None))
    assert layout.PVH_MODLIST not in writes
    fields = struct.unpack("<IIIIQQQQII", writes[layout.PVH_START_INFO])
    assert fields[3:5] == (0, 0)
