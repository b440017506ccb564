"""The memory map: it tells of all memory, and of nothing twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import layout
from vmmd.boot.e820 import RAM, RESERVED, memory_map


def test_one_mib_has_no_high_memory() -> None:
    entries = memory_map(layout.memory_regions(1))
    assert [(e.gpa, e.size, e.kind) for e in entries] == [
        (0, 0x9FC00, RAM),
        (0x9FC00, 0x40400, RESERVED),
        (0xEEC0_0000, 256 << 20, RESERVED),
    ]


@given(st.integers(1, 1 << 22))
def test_ram_is_memory_and_ranges_do_not_overlap(mib: int) -> None:
    regions = layout.memory_regions(mib)
    entries = sorted(memory_map(regions), key=lambda e: e.gpa)
    for one, other in pairwise(entries):
        assert one.gpa + one.size <= other.gpa
    for entry in entries:
        assert entry.size > 0
        inside = any(
            gpa <= entry.gpa and entry.gpa + entry.size <= gpa + size
            for gpa, size in regions
        )
        assert inside or entry.kind == RESERVED
    told = sum(e.size for e in entries if e.kind == RAM)
    # What is missing is the hole of a PC: from the tables' start up to 1 MiB.
    assert told == (mib << 20) - (0x10_0000 - 0x9FC00)
