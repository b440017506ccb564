"""Buses: who answers what; register pages: atomic, aligned, little-endian."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd._native import ffi
from vmmd.bus import PAGE_SIZE, Bus, RegisterPage, Space, Window


@dataclass
class Recorder:
    """A device that answers ``value`` and notes what it was asked."""

    value: int = 0x1122_3344_5566_7788
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def read(self, offset: int, size: int) -> int:
        self.asked.append((offset, size))
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.asked.append((offset, size, value))


def window(
    base: int, length: int, device: Recorder, space: Space = Space.MMIO
) -> Window:
    return Window(space, base, length, device, RegisterPage())


def test_a_device_sees_offsets() -> None:
    bus, device = Bus(), Recorder()
    bus.add(window(0x3F8, 8, device, Space.PIO))
    assert bus.read(Space.PIO, 0x3F9, 1) == 0x88
    bus.write(Space.PIO, 0x3FF, 1, 7)
    assert device.asked == [(1, 1), (7, 1, 7)]
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (0, 0)


def test_the_spaces_are_apart() -> None:
    bus, ports, memory = Bus(), Recorder(), Recorder()
    bus.add(window(0x100, 8, ports, Space.PIO))
    bus.add(window(0x100, 8, memory, Space.MMIO))
    bus.read(Space.PIO, 0x100, 1)
    assert (len(ports.asked), len(memory.asked)) == (1, 0)


@pytest.mark.parametrize(
    ("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF), (8, (1 << 64) - 1)]
)
def test_nobody_answers_all_ones(size: int, ones: int) -> None:
    bus = Bus()
    assert bus.read(Space.MMIO, 0xDEAD, size) == ones
    bus.write(Space.MMIO, 0xDEAD, size, 0)
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (1, 1)


def test_an_access_across_the_end_is_nobody_s() -> None:
    bus, device = Bus(), Recorder()
    bus.add(window(0x1000, 4, device))
    assert bus.read(Space.MMIO, 0x1002, 4) == 0xFFFF_FFFF
    bus.write(Space.MMIO, 0x1003, 2, 1)
    assert device.asked == []
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (1, 1)


@pytest.mark.parametrize(
    ("base", "length"), [(0x1000, 8), (0xFFF, 2), (0x1007, 1), (0x800, 0x1000)]
)
def test_windows_do_not_overlap(base: int, length: int) -> None:
    bus = Bus()
    bus.add(window(0x1000, 8, Recorder()))
    with pytest.raises(ValueError, match="overlaps 0x1000"):
        bus.add(window(base, length, Recorder()))
    bus.add(window(base, length, Recorder(), Space.PIO))
    bus.add(window(0x1008, 8, Recorder()))
    bus.add(window(0x7FF, 0x801, Recorder()))


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(1, 16)), max_size=6),
    st.integers(0, 90),
)
def test_an_address_finds_the_one_window_that_holds_it(
    ranges: list[tuple[int, int]], address: int
) -> None:
    bus = Bus()
    for base, length in ranges:
        taken = {a for w in bus.windows for a in range(w.base, w.base + w.length)}
        new = window(base, length, Recorder())
        if taken.isdisjoint(range(base, base + length)):
            bus.add(new)
        else:
            with pytest.raises(ValueError, match="overlaps"):
                bus.add(new)
    holding = [w for w in bus.windows if w.base <= address < w.base + w.length]
    assert bus.find(Space.MMIO, address) is (holding[0] if holding else None)


def test_a_register_page_is_a_page() -> None:
    page = RegisterPage()
    assert int(ffi.cast("uintptr_t", page.native)) % PAGE_SIZE == 0
    page.store(PAGE_SIZE - 8, 8, (1 << 64) - 1)
    assert page.load(PAGE_SIZE - 1, 1) == 0xFF
    assert page.load(0, 8) == 0


stores = st.tuples(
    st.integers(0, 7), st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1)
)


@given(st.lists(stores), st.sampled_from((1, 2, 4, 8)))
def test_a_register_page_is_little_endian_bytes(
    writes: list[tuple[int, int, int]], size: int
) -> None:
    page, model = RegisterPage(), bytearray(64)
    for slot, width, value in writes:
        value &= (1 << 8 * width) - 1
        page.store(slot * width, width, value)
        model[slot * width : (slot + 1) * width] = value.to_bytes(width, "little")
    for offset in range(0, 64, size):
        expected = int.from_bytes(model[offset : offset + size], "little")
        assert page.load(offset, size) == expected


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFF_FFFF))
def test_or_leaves_the_neighbours(before: int, bits: int) -> None:
    page = RegisterPage()
    page.store(0, 4, 0x1234)
    page.store(4, 4, before)
    page.or_u32(4, bits)
    assert page.load(4, 4) == before | bits
    assert (page.load(0, 4), page.load(8, 4)) == (0x1234, 0)
