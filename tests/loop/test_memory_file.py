"""Memory files: what is written against what memory holds, and what is left out."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.memory_files import write_diff, write_full
from vmmd._native import lib
from vmmd.errors import HostError
from vmmd.loop import memory_file, memory_pass
from vmmd.loop.dirty import DirtyUnion
from vmmd.loop.files import map_guest_memory, map_snapshot_memory, unmap_guest_memory
from vmmd.loop.memory_file import Onto, Parent, full_plan, write
from vmmd.loop.memory_pass import Pass, Plan
from vmmd.loop.origin import BaseFile, Origin
from vmmd.loop.pages import data_extents, present_pages
from vmmd.memory import PAGE_SIZE
from vmmd.state.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vmmd.memory import GuestMemory
    from vmmd.state.manifest import MemoryManifest

# Two regions whose border is in the midst of a block, and of the parts that are
# written at once; a short last block.
REGIONS = ((0, (3 << 20) + 5 * PAGE_SIZE), (1 << 32, (4 << 20) + 8 * PAGE_SIZE))
SIZE = sum(size for _, size in REGIONS)
PAGES = SIZE // PAGE_SIZE
BORDER = REGIONS[0][1] // PAGE_SIZE


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    made = map_guest_memory(REGIONS)
    yield made
    unmap_guest_memory(made)


def gpa(page: int) -> int:
    """Guest address of a page of the file."""
    return (
        page * PAGE_SIZE if page < BORDER else (page - BORDER) * PAGE_SIZE + (1 << 32)
    )


def fill(memory: GuestMemory, pages: Mapping[int, int]) -> None:
    """Write pages full of a byte each."""
    for page, byte in pages.items():
        memory.write(gpa(page), bytes([byte]) * PAGE_SIZE)


def give_back(memory: GuestMemory) -> None:
    """Fresh zero memory for pages 16 to 19, as a balloon does."""
    host = memory.native.region[0].host + 16 * PAGE_SIZE
    assert lib.files_map_file(host, 4 * PAGE_SIZE, -1, 0) == 0


def fresh(tmp_path: Path, name: str = "m") -> int:
    return os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def content(pages: Mapping[int, int]) -> bytes:
    whole = bytearray(SIZE)
    for page, byte in pages.items():
        whole[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = bytes([byte]) * PAGE_SIZE
    return bytes(whole)


def named(pages: int) -> set[int]:
    return {page for page in range(PAGES) if pages >> page & 1}


def check_manifest(made: MemoryManifest, data: bytes) -> None:
    """Each block's checksum is that of its data pages, in order."""
    assert made.size == len(data)
    assert made.regions == REGIONS
    for block in made.blocks:
        checksum = 0
        for bit in sorted(named(int.from_bytes(block.pages, "little"))):
            at = (block.index << 21) + bit * PAGE_SIZE
            checksum = crc32c(data[at : at + PAGE_SIZE], checksum)
        assert block.checksum == checksum


async def test_a_full_has_data_pages_and_holes(
    memory: GuestMemory, tmp_path: Path
) -> None:
    pages = {0: 1, 5: 2, BORDER - 1: 3, BORDER: 4, BORDER + 1: 5, PAGES - 1: 6}
    fill(memory, pages | {7: 0, 600: 0})
    fd = fresh(tmp_path)
    made = await write_full(memory, fd)
    data = (tmp_path / "m").read_bytes()
    assert data == content(pages)
    assert named(data_extents(fd, SIZE)) == set(pages)
    assert named(int.from_bytes(made.pages, "little")) == set(pages)
    assert (made.kind, made.parent_id, made.data_pages) == ("Full", None, 6)
    check_manifest(made, data)
    os.close(fd)


@pytest.mark.parametrize("scan", [True, False])
def test_present_pages_are_those_that_were_written(
    memory: GuestMemory, *, scan: bool
) -> None:
    fill(memory, {3: 1, BORDER: 0})
    assert named(present_pages(memory, scan=scan)) == {3, BORDER}


@pytest.mark.parametrize("scan", [True, False])
def test_of_a_mapped_file_only_written_pages_are_memorys(
    tmp_path: Path, *, scan: bool
) -> None:
    (tmp_path / "base").write_bytes(b"x" * SIZE)
    fd = os.open(tmp_path / "base", os.O_RDONLY)
    memory = map_snapshot_memory(REGIONS, fd)
    fill(memory, {3: 1, BORDER: 0})
    # After the writes, which may unmap what a large page of the cache had mapped.
    assert memory.read(gpa(9), 1) == b"x"
    found = present_pages(memory, private_file=True, scan=scan)
    assert named(found) == {3, BORDER}
    unmap_guest_memory(memory)
    os.close(fd)


def test_many_runs_are_all_found(memory: GuestMemory) -> None:
    pages = set(range(0, PAGES, 2))
    fill(memory, dict.fromkeys(pages, 1))
    assert named(present_pages(memory)) == pages


async def test_a_full_of_restored_memory_is_the_bases_with_what_was_written(
    memory: GuestMemory, tmp_path: Path
) -> None:
    old = {0: 1, 1: 2, 600: 3, 601: 4, PAGES - 1: 5}
    fill(memory, old)
    base = fresh(tmp_path, "base")
    parent = await write_full(memory, base)
    restored = map_snapshot_memory(REGIONS, base)
    for page, byte in old.items():
        assert restored.read(gpa(page), 1) == bytes([byte])
    fill(restored, {1: 0, 2: 9, 3: 0})
    fd = fresh(tmp_path)
    origin = Origin(BaseFile(base, parent))
    made = await write_full(restored, fd, origin)
    data = (tmp_path / "m").read_bytes()
    assert data == content((old | {2: 9}) | {1: 0})
    assert named(data_extents(fd, SIZE)) == {0, 2, 600, 601, PAGES - 1}
    check_manifest(made, data)
    assert not await memory_file.verify(fd, made)
    unmap_guest_memory(restored)
    os.close(fd)


async def test_the_manifest_of_a_merged_diff_does_not_stand_for_its_file(
    memory: GuestMemory, tmp_path: Path
) -> None:
    """Somebody merged a Diff onto its parent, and it was loaded as it is then."""
    dirty = DirtyUnion(memory, lambda _slot, size: bytes(size // PAGE_SIZE // 8))
    fill(memory, {3: 1})
    diff = fresh(tmp_path, "diff")
    made = await write_diff(memory, diff, dirty, Parent("before"))
    fill(memory, {9: 2, 600: 3})
    base = fresh(tmp_path, "base")
    await write_full(memory, base)
    restored = map_snapshot_memory(REGIONS, base)
    fd = fresh(tmp_path)
    origin = Origin(BaseFile(base, made))
    full = await write_full(restored, fd, origin)
    assert named(int.from_bytes(full.pages, "little")) == {3, 9, 600}
    unmap_guest_memory(restored)
    for each in (diff, base, fd):
        os.close(each)


async def test_given_back_ranges_are_zero_and_not_the_files(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"x" * SIZE)
    base = os.open(tmp_path / "base", os.O_RDONLY)
    memory = map_snapshot_memory(REGIONS, base)
    give_back(memory)
    fill(memory, {17: 7})
    fd = fresh(tmp_path)
    origin = Origin(BaseFile(base))
    await write_full(memory, fd, origin)
    expected = dict.fromkeys(range(PAGES), ord("x"))
    expected |= {16: 0, 17: 7, 18: 0, 19: 0}
    assert (tmp_path / "m").read_bytes() == content(expected)
    unmap_guest_memory(memory)
    os.close(fd)
    os.close(base)


async def test_a_diff_has_dirty_pages_also_zero_ones(
    memory: GuestMemory, tmp_path: Path
) -> None:
    dirty = DirtyUnion(memory, lambda _slot, size: bytes(size // PAGE_SIZE // 8))
    fill(memory, {2: 1, 3: 2})
    dirty.collect()
    dirty.commit()
    fill(memory, {3: 0, 700: 4})
    fd = fresh(tmp_path)
    made = await write_diff(memory, fd, dirty, Parent("before"))
    data = (tmp_path / "m").read_bytes()
    assert named(data_extents(fd, SIZE)) == {3, 700}
    assert data == content({700: 4})
    assert (made.kind, made.parent_id, made.data_pages) == ("Diff", "before", 2)
    check_manifest(made, data)
    os.close(fd)


@pytest.mark.parametrize("copy", [True, False])
async def test_a_diff_is_merged_onto_a_file(
    memory: GuestMemory, tmp_path: Path, *, copy: bool
) -> None:
    fill(memory, {2: 1, 3: 2, 1500: 3})
    old = fresh(tmp_path, "old")
    full = await write_full(memory, old)
    dirty = DirtyUnion(memory, lambda _slot, size: bytes(size // PAGE_SIZE // 8))
    memory.clear_dirty()
    fill(memory, {3: 0, 700: 4})
    new = fresh(tmp_path)
    parent = Parent("before", Onto(BaseFile(old, full), copy))
    made = await write_diff(memory, new, dirty, parent)
    if not copy:
        memory_file.merge_journal(new, old, SIZE)
        memory_file.merge_journal(new, old, SIZE)
    merged = (tmp_path / ("m" if copy else "old")).read_bytes()
    assert merged == content({2: 1, 700: 4, 1500: 3})
    assert (made.kind, made.parent_id, made.data_pages) == ("Full", None, 4)
    check_manifest(made, merged)
    os.close(new)
    os.close(old)


async def test_a_merge_onto_a_stranger_leaves_its_blocks_unverified(
    memory: GuestMemory, tmp_path: Path
) -> None:
    (tmp_path / "old").write_bytes(b"x" * SIZE)
    old = os.open(tmp_path / "old", os.O_RDWR)
    dirty = DirtyUnion(memory, lambda _slot, size: bytes(size // PAGE_SIZE // 8))
    fill(memory, {3: 1})
    new = fresh(tmp_path)
    parent = Parent("before", Onto(BaseFile(old), copy=True))
    made = await write_diff(memory, new, dirty, parent)
    assert [b.checksum is None for b in made.blocks] == [False, True, True, True]
    assert not await memory_file.verify(new, made)
    os.close(new)
    os.close(old)


async def test_without_tracking_a_diff_has_what_is_not_the_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "base").write_bytes(b"x" * SIZE)
    base = os.open(tmp_path / "base", os.O_RDONLY)
    memory = map_snapshot_memory(REGIONS, base)
    give_back(memory)
    fill(memory, {17: 7, 900: 0})
    memory.read(gpa(40), 1)
    fd = fresh(tmp_path)
    origin = Origin(BaseFile(base))
    untracked = DirtyUnion(memory)
    for _ in range(2):
        made = await write_diff(memory, fd, untracked, Parent("base"), origin)
        untracked.commit()
        assert named(int.from_bytes(made.pages, "little")) == {16, 17, 18, 19, 900}
    unmap_guest_memory(memory)
    os.close(fd)
    os.close(base)


async def test_verify_names_the_blocks_that_differ(
    memory: GuestMemory, tmp_path: Path
) -> None:
    fill(memory, {2: 1, 1500: 3})
    fd = fresh(tmp_path)
    made = await write_full(memory, fd)
    assert await memory_file.verify(fd, made) == ()
    os.pwrite(fd, b"!", 1500 * PAGE_SIZE + 99)
    assert await memory_file.verify(fd, made) == (2,)
    os.ftruncate(fd, SIZE // 2)
    with pytest.raises(HostError, match="Cannot read the base memory file: I/O error"):
        await memory_file.verify(fd, made)
    os.close(fd)


def test_a_file_too_short_to_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"x" * (SIZE - 1))
    fd = os.open(tmp_path / "base", os.O_RDONLY)
    with pytest.raises(HostError, match="Total sum of memory regions exceeds"):
        map_snapshot_memory(REGIONS, fd)
    os.close(fd)


page_sets = st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 3), max_size=40)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(page_sets, page_sets, st.booleans(), st.booleans(), st.booleans())
def test_any_pages_come_back(
    tmp_path: Path,
    old: dict[int, int],
    new: dict[int, int],
    given_back: bool,
    in_place: bool,
    two_threads: bool,
) -> None:
    """A Full, a restore, a Full of that, and a Diff of that onto the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_pass, "TWO_THREADS_PAGES", 0 if two_threads else PAGES + 1)
        trio.run(round_trip, tmp_path, old, new, given_back, in_place)


async def round_trip(
    tmp_path: Path,
    old: dict[int, int],
    new: dict[int, int],
    given_back: bool,
    in_place: bool,
) -> None:
    first, second, third = (fresh(tmp_path, name) for name in ("1", "2", "3"))
    memory = map_guest_memory(REGIONS)
    fill(memory, old)
    full = await write_full(memory, first)
    unmap_guest_memory(memory)
    check_manifest(full, content(old))
    restored = map_snapshot_memory(REGIONS, first)
    expected = dict(old)
    if given_back:
        give_back(restored)
        expected |= dict.fromkeys(range(16, 20), 0)
    fill(restored, new)
    expected |= new
    origin = Origin(BaseFile(first, full))
    made = await write_full(restored, second, origin)
    assert (tmp_path / "2").read_bytes() == content(expected)
    check_manifest(made, content(expected))
    parent = Parent("1", Onto(BaseFile(first, full), copy=not in_place))
    merged = await write_diff(restored, third, DirtyUnion(restored), parent, origin)
    if in_place:
        memory_file.reserve_journal(third, first, SIZE)
        memory_file.merge_journal(third, first, SIZE)
    assert (tmp_path / ("1" if in_place else "3")).read_bytes() == content(expected)
    check_manifest(merged, content(expected))
    assert not await memory_file.verify(first if in_place else third, merged)
    unmap_guest_memory(restored)
    for fd in (first, second, third):
        os.close(fd)


def test_what_two_threads_check_comes_to_the_same(
    memory: GuestMemory, tmp_path: Path
) -> None:
    fill(memory, {2: 1, 3: 0, 1500: 3})
    fd = fresh(tmp_path)
    plan = Plan(present_pages(memory), "Full", None, skip_zero=True)
    work = Pass(memory, fd, SIZE, plan, bytes(4))
    work.work()
    once = work.manifest(REGIONS)
    work.work()
    assert work.manifest(REGIONS) == once
    assert named(int.from_bytes(once.pages, "little")) == {2, 1500}
    os.close(fd)


def test_what_was_checked_is_only_written(memory: GuestMemory, tmp_path: Path) -> None:
    fill(memory, {2: 1, 3: 0, 1500: 3})
    fd = fresh(tmp_path)
    plan = Plan(present_pages(memory), "Full", None, skip_zero=True)
    work = Pass(memory, fd, SIZE, plan, bytes(4))
    work.native.checked[0:4] = [1] * 4
    work.work()
    assert list(work.checksums) == [0] * 4
    assert named(data_extents(fd, SIZE)) == {2, 3, 1500}
    os.close(fd)


async def test_progress_is_told_and_ends_whole(
    memory: GuestMemory, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    fd = fresh(tmp_path)
    await write_full(memory, fd, progress=lambda *at: told.append((at[0], at[1])))
    assert told == sorted(told)
    assert told[-1] == (SIZE, SIZE)
    os.close(fd)


async def test_cancelled_it_ends_and_the_threads_with_it(tmp_path: Path) -> None:
    memory = map_guest_memory([(0, 256 << 20)])
    memory.write(0, bytes(1 << 20) + b"x" * (255 << 20))
    fd = fresh(tmp_path)
    with trio.CancelScope() as scope:
        await write_full(memory, fd, progress=lambda _done, _size: scope.cancel())
    assert scope.cancelled_caught
    assert os.fstat(fd).st_blocks * 512 < 128 << 20
    unmap_guest_memory(memory)
    os.close(fd)


async def test_what_is_done_meanwhile_may_fail(
    memory: GuestMemory, tmp_path: Path
) -> None:
    fill(memory, {2: 1})
    fd = fresh(tmp_path)
    plan = full_plan(memory)

    def fail() -> None:
        raise HostError("KVM does not tell")

    with pytest.raises(HostError, match="KVM does not tell"):
        await write(memory, fd, plan, meanwhile=fail)
    made = await write(memory, fd, plan)
    check_manifest(made, content({2: 1}))
    os.close(fd)


async def test_a_limit_on_file_sizes_is_an_error(
    memory: GuestMemory, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fd = fresh(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(HostError) as caught:
            await write_full(memory, fd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == (
        "Cannot perform set_length on the memory backing file: "
        "File too large (os error 27)"
    )
    os.close(fd)


async def test_a_write_that_fails_is_an_error(
    memory: GuestMemory, tmp_path: Path
) -> None:
    """The limit comes down once the file has its length."""
    fill(memory, {PAGES - 1: 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fd = fresh(tmp_path)

    def limit(_done: int, _size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - PAGE_SIZE, limits[1]))

    dirty = DirtyUnion(memory, lambda _slot, size: bytes(size // PAGE_SIZE // 8))
    copy = Parent("x", Onto(BaseFile(fd), copy=False))
    try:
        with pytest.raises(
            HostError,
            match=r"Cannot write memory file: .*File too large \(os error 27\)",
        ):
            await write_diff(memory, fd, dirty, copy, progress=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert named(dirty.collect()) == {PAGES - 1}
    os.close(fd)
