"""Guest memory against a plain model: bytes, bounds, the host-writes bitmap, C."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd._native import ffi, lib
from vmmd.errors import GuestError
from vmmd.memory import PAGE_SIZE, GuestMemory, Region

LOW, HIGH = 3 * PAGE_SIZE, 70 * PAGE_SIZE + 12
GAP = 1 << 32

# Around every edge there is, and anywhere.
addresses = st.one_of(
    st.integers(-1, LOW + 1),
    st.integers(GAP - 1, GAP + HIGH + 1),
    st.sampled_from((LOW - 8, LOW, GAP - 8, GAP, GAP + HIGH - 8, 1 << 63, 1 << 64)),
)
lengths = st.one_of(st.integers(0, 9), st.integers(0, 3 * PAGE_SIZE + 1), st.just(-1))


def fresh() -> GuestMemory:
    return GuestMemory([Region(GAP, bytearray(HIGH)), Region(0, bytearray(LOW))])


def inside(gpa: int, length: int) -> bool:
    """Whether a range is one that memory has; an empty one must start in memory."""
    return length >= 0 and any(
        start <= gpa < start + size and gpa + length <= start + size
        for start, size in ((0, LOW), (GAP, HIGH))
    )


def dirty_pages(memory: GuestMemory) -> set[int]:
    """Guest-physical addresses of the pages that are marked."""
    return {
        region.gpa + PAGE_SIZE * (8 * at + bit)
        for region, bitmap in zip(memory.regions, memory.dirty_bitmaps(), strict=True)
        for at, byte in enumerate(bitmap)
        for bit in range(8)
        if byte >> bit & 1
    }


def pages(gpa: int, length: int) -> set[int]:
    """The pages that a range touches; an empty one touches none."""
    first = gpa & -PAGE_SIZE if length else gpa
    return set(range(first, gpa + length, PAGE_SIZE))


def test_regions_are_sorted_and_summed() -> None:
    memory = fresh()
    assert [region.gpa for region in memory.regions] == [0, GAP]
    assert memory.size == LOW + HIGH


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_or_too_many_regions(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 8 regions"):
        GuestMemory([Region(i << 20, bytearray(16)) for i in range(count)])


@given(addresses, lengths)
def test_only_what_is_memory_can_be_reached(gpa: int, length: int) -> None:
    memory = fresh()
    for reach in (memory.slice, memory.read, memory.writable):
        if inside(gpa, length):
            assert len(reach(gpa, length)) == length
        else:
            with pytest.raises(GuestError):
                reach(gpa, length)
    if length >= 0 and not inside(gpa, length):
        with pytest.raises(GuestError):
            memory.write(gpa, bytes(length))
        assert not dirty_pages(memory)


@given(
    addresses.filter(lambda a: 0 <= a < 1 << 64),
    st.integers(0, 1 << 64).map(lambda n: min(n, (1 << 64) - 1)) | st.integers(0, 9),
)
def test_c_judges_as_python_does(gpa: int, length: int) -> None:
    memory = fresh()
    pointer = lib.gm_slice(memory.native, gpa, length)
    assert (pointer != ffi.NULL) == inside(gpa, length)
    if inside(gpa, min(length, 8)) and length >= 8 and pointer != ffi.NULL:
        memory.write(gpa, b"\x01\x02\x03\x04\x05\x06\x07\x08")
        assert bytes(ffi.buffer(ffi.cast("uint8_t *", pointer), 8)) == bytes(
            range(1, 9)
        )


@given(st.lists(st.tuples(addresses, st.binary(max_size=40), st.booleans())))
def test_writes_are_read_back_and_marked(
    writes: list[tuple[int, bytes, bool]],
) -> None:
    memory = fresh()
    model = {0: bytearray(LOW), GAP: bytearray(HIGH)}
    marked: set[int] = set()
    for gpa, data, clear in writes:
        if clear:
            memory.clear_dirty()
            marked.clear()
        if not inside(gpa, len(data)):
            continue
        memory.write(gpa, data)
        base = 0 if gpa < LOW else GAP
        model[base][gpa - base : gpa - base + len(data)] = data
        marked |= pages(gpa, len(data))
    for base, content in model.items():
        assert memory.read(base, len(content)) == content
    assert dirty_pages(memory) == marked


@given(addresses, lengths)
def test_writable_marks_what_it_hands_out(gpa: int, length: int) -> None:
    memory = fresh()
    if not inside(gpa, length):
        return
    memory.writable(gpa, length)[:] = b"\xa5" * length
    assert memory.read(gpa, length) == b"\xa5" * length
    assert dirty_pages(memory) == pages(gpa, length)


@given(
    addresses.filter(lambda a: 0 <= a < 1 << 64),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 3 * PAGE_SIZE),
)
def test_c_marks_no_more_than_there_is(gpa: int, length: int) -> None:
    memory = fresh()
    lib.gm_mark(memory.native, gpa, length)
    if not inside(gpa, 0):
        assert not dirty_pages(memory)
        return
    end = LOW if gpa < LOW else GAP + HIGH
    assert dirty_pages(memory) == pages(gpa, min(length, end - gpa))


def test_a_read_is_a_copy_and_a_slice_is_not() -> None:
    memory = fresh()
    copy, view = memory.read(16, 2), memory.slice(16, 2)
    memory.write(16, b"ab")
    assert (copy, bytes(view)) == (b"\0\0", b"ab")
    with pytest.raises(TypeError):
        view[0] = 1


@given(st.integers(0, LOW - 8), st.binary(min_size=8, max_size=8))
def test_loads_and_stores_are_little_endian(gpa: int, data: bytes) -> None:
    memory = fresh()
    memory.write(gpa, data)
    for load, size in (
        (memory.load_u16, 2),
        (memory.load_u32, 4),
        (memory.load_u64, 8),
    ):
        assert load(gpa) == int.from_bytes(data[:size], "little")
    memory.clear_dirty()
    memory.store_u16(gpa, 0x0201)
    memory.store_u32(gpa + 2, 0x06050403)
    assert memory.read(gpa, 6) == b"\1\2\3\4\5\6"
    assert dirty_pages(memory) == pages(gpa, 6)


def test_a_word_across_the_end_is_not_memory() -> None:
    memory = fresh()
    for load, size in (
        (memory.load_u16, 2),
        (memory.load_u32, 4),
        (memory.load_u64, 8),
    ):
        load(LOW - size)
        with pytest.raises(GuestError, match="is not guest memory"):
            load(LOW - size + 1)
    with pytest.raises(GuestError):
        memory.store_u32(LOW - 3, 0)


def test_neighbouring_regions_are_not_one() -> None:
    memory = GuestMemory([Region(0, bytearray(4096)), Region(4096, bytearray(4096))])
    assert memory.read(4096, 4096) == bytes(4096)
    with pytest.raises(GuestError):
        memory.read(4095, 2)
    assert lib.gm_slice(memory.native, 4095, 2) == ffi.NULL
