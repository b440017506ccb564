"""The whole plan: nothing overlaps, all is in memory, and it is all there."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.kernels import MIB, BytesSource, BzImage, Load, elf, pvh_elf
from vmmd.boot import layout
from vmmd.boot.plan import Board, BootPlan, plan

KERNELS = (BzImage().build(), pvh_elf(), elf(Load(16 * MIB, b"\xf4" * 100, 5 * MIB)))


def extents(made: BootPlan) -> list[tuple[int, int]]:
    """Every byte the plan puts somewhere, as ``(gpa, size)``."""
    files = [*made.segments, *([made.initrd] if made.initrd else [])]
    return [(f.gpa, f.size) for f in files] + [(a, len(d)) for a, d in made.writes]


@given(
    st.sampled_from(KERNELS),
    st.integers(1, 32),
    st.integers(64, 8192),
    st.integers(0, 17),
    st.none() | st.integers(1, 12 * MIB),
    st.integers(1, 2048),
)
def test_no_two_parts_share_a_byte_and_all_lie_in_memory(
    kernel: bytes, cpus: int, mib: int, devices: int, initrd: int | None, line: int
) -> None:
    regions = layout.memory_regions(mib)
    board = Board(cpus, regions, layout.virtio_slots(devices))
    made = plan(board, BytesSource(kernel), initrd, b"x" * (line - 1) + b"\0")
    parts = sorted(extents(made))
    for (gpa, size), (following, _) in pairwise(parts):
        assert gpa + size <= following
    for gpa, size in parts:
        assert size > 0
        assert any(a <= gpa and gpa + size <= a + n for a, n in regions)
    # Firmware tables are read after the memory map is in force.
    for gpa, data in made.writes:
        if data[:4] in (b"_MP_", b"PCMP", b"DSDT", b"FACP", b"APIC", b"XSDT"):
            assert layout.SYSTEM_MEM_START <= gpa <= gpa + len(data) <= layout.RSDP


def test_a_bzimage_gets_a_zero_page_and_page_tables() -> None:
    board = Board(1, layout.memory_regions(128))
    made = plan(board, BytesSource(KERNELS[0]), 4096, b"quiet\0")
    writes = dict(made.writes)
    assert writes[layout.CMDLINE] == b"quiet\0"
    page = writes[layout.ZERO_PAGE]
    assert page[0x238] == 6
    assert made.initrd is not None
    assert page[0x218:0x21C] == made.initrd.gpa.to_bytes(4, "little")
    assert layout.PML4 in writes
    assert made.entry.params == layout.ZERO_PAGE


def test_pvh_gets_a_start_info_and_no_page_tables() -> None:
    board = Board(1, layout.memory_regions(128))
    writes = dict(plan(board, BytesSource(KERNELS[1]), None, b"\0").writes)
    assert layout.PVH_START_INFO in writes
    assert layout.PML4 not in writes
    assert len(writes[layout.PVH_MEMMAP]) == 4 * 24


@pytest.mark.parametrize("kernel", KERNELS)
def test_both_kinds_of_tables_are_always_offered(kernel: bytes) -> None:
    board = Board(2, layout.memory_regions(128))
    writes = dict(plan(board, BytesSource(kernel), None, b"\0").writes)
    assert writes[layout.SYSTEM_MEM_START].startswith(b"_MP_")
    assert writes[layout.RSDP].startswith(b"RSD PTR ")
