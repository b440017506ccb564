"""Writing guest memory to a memory file: which pages, and the two workers.

The pages are found without reading them (``memory_file.c``); one worker looks
for zero pages and sums up block *n*+1 while another writes block *n*. The guest
is paused all the while, and the loop serves.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from vmmd._native import ffi, lib
from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.pages import (
    BLOCK_BYTES,
    all_pages,
    data_extents,
    mapped_from_file,
    present_pages,
)
from vmmd.memory import PAGE_SIZE
from vmmd.rust import io_error
from vmmd.state.manifest import MemoryManifest, count_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from vmmd._native import CData
    from vmmd.loop.dirty import DirtyUnion
    from vmmd.memory import GuestMemory

    Progress: TypeAlias = Callable[[int, int], None]
    """Called with bytes of the file passed, and its size."""

PROGRESS_S = 0.05


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A memory file that is open at ``fd``, which is its opener's to close.

    ``manifest``: what its snapshot says of it, None if nobody knows.
    """

    fd: int
    manifest: MemoryManifest | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What guest memory shows where nothing was written since it was mapped.

    Zeros; or the pages of ``base``, mapped privately; or, with ``served``, what
    a page server gives through userfaultfd.
    """

    base: BaseFile | None = None
    served: bool = False


@dataclass(frozen=True, slots=True)
class Onto:
    """An existing memory file that a Diff is merged onto.

    With ``copy`` the result is whole: the file's pages that the Diff has not are
    copied (shared where the file system can). Else the file written is only a
    journal: the Diff's pages, and after them the bitmap that names them.
    """

    file: BaseFile
    copy: bool


@dataclass(frozen=True, slots=True)
class Parent:
    """What a Diff is relative to: a snapshot's id, None if it is to nothing.

    ``onto``: the file it is merged onto, None to write the Diff alone.
    """

    snapshot_id: str | None
    onto: Onto | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """One pass: ``take`` from memory, ``keep`` of ``base``; sets of pages."""

    take: int
    kind: str
    parent_id: str | None
    keep: int = 0
    base: BaseFile | None = None
    skip_zero: bool = False
    copy_base: bool = False


_FAILED = {
    lib.memfile_check: "Cannot read the base memory file: ",
    lib.memfile_write: "Cannot write memory file: Cannot dump memory: "
    "Guest memory error: ",
}


def _silent(done: int, size: int) -> None:
    """Progress that nobody wants."""


NOWHERE = Origin()


async def write_full(
    memory: GuestMemory,
    fd: int,
    origin: Origin = NOWHERE,
    progress: Progress = _silent,
) -> MemoryManifest:
    """Write all of memory to ``fd``, an empty file: data pages, the rest holes.

    Returns the manifest of the file. HostError with Firecracker's text if the
    file cannot take it (no space, size limit); what was written is then of no
    use. Cancelled, it ends within a block. fsync is the caller's.
    """
    return await _write(memory, fd, _full(memory, origin), progress)


async def write_diff(
    memory: GuestMemory,
    fd: int,
    dirty: DirtyUnion,
    parent: Parent,
    origin: Origin = NOWHERE,
    progress: Progress = _silent,
) -> MemoryManifest:
    """Write the pages that are not the parent's to ``fd``, an empty file.

    As :func:`write_full`. The union is not committed: that is the caller's, once
    the files have their names. With tracking off these are the pages that are
    present or swapped and not the file's; the parent is then the snapshot that
    memory was mapped from. With ``parent.onto`` the manifest is the merged file's.
    """
    plan = _diff(memory, dirty, parent, origin)
    made = await _write(memory, fd, plan, progress)
    if parent.onto is not None and not parent.onto.copy:
        bitmap = plan.take.to_bytes(BLOCK_BYTES * made.block_count, "little")
        with _naming("Cannot write memory file: "):
            _pwrite(fd, bitmap, made.size)
    return made


def full_bytes(memory: GuestMemory, origin: Origin = NOWHERE) -> int:
    """At most so many bytes does a Full need on disk. Blocks for a millisecond."""
    plan = _full(memory, origin)
    return (plan.take | plan.keep).bit_count() * PAGE_SIZE


def diff_bytes(
    memory: GuestMemory,
    dirty: DirtyUnion,
    parent: Parent,
    origin: Origin = NOWHERE,
) -> int:
    """The same of a Diff."""
    plan = _diff(memory, dirty, parent, origin)
    kept = plan.keep.bit_count() if plan.copy_base else 0
    return (plan.take.bit_count() + kept) * PAGE_SIZE


async def verify(fd: int, manifest: MemoryManifest) -> tuple[int, ...]:
    """The blocks of a memory file that are not as its manifest says.

    Reads every data page, and of the others that they are holes or zero is not
    asked. HostError if the file cannot be read.
    """
    pages = int.from_bytes(manifest.pages, "little")
    plan = _Plan(0, manifest.kind, manifest.parent_id, pages, BaseFile(fd))
    work = _Pass(None, -1, manifest.size, plan, bytes(manifest.block_count))
    await work.run(_silent)
    return tuple(
        block.index
        for block in manifest.blocks
        if block.checksum is not None and work.checksums[block.index] != block.checksum
    )


def reserve_journal(journal_fd: int, target_fd: int, size: int) -> None:
    """Take the space that carrying a journal out will need. OSError if there is none."""
    new = _journal_pages(journal_fd, size) & ~data_extents(target_fd, size)
    while new:
        first = (new & -new).bit_length() - 1
        run = new >> first
        count = (~run & run + 1).bit_length() - 1
        os.posix_fallocate(target_fd, first * PAGE_SIZE, count * PAGE_SIZE)
        new = run >> count << first + count


def merge_journal(journal_fd: int, target_fd: int, size: int) -> None:
    """Carry a journal out on the file it is for, which has ``size`` bytes.

    Again does the same again: what was interrupted is done from the start.
    Blocks; OSError from the file.
    """
    pages = _journal_pages(journal_fd, size)
    plan = _Plan(0, "Diff", None, pages, BaseFile(journal_fd), copy_base=True)
    work = _Pass(None, target_fd, size, plan, bytes(count_blocks(size)))
    work.native.checked = count_blocks(size)
    if number := lib.memfile_write(work.native):
        raise OSError(-number, os.strerror(-number))


def _journal_pages(fd: int, size: int) -> int:
    bitmap = os.pread(fd, BLOCK_BYTES * count_blocks(size), size)
    return int.from_bytes(bitmap, "little")


# -- Which pages


def _full(memory: GuestMemory, origin: Origin) -> _Plan:
    base = origin.base
    if base is None:
        take = all_pages(memory) if origin.served else present_pages(memory)
        return _Plan(take, "Full", None, skip_zero=True)
    take = present_pages(memory, private_file=True)
    keep = data_extents(base.fd, memory.size) & mapped_from_file(memory) & ~take
    return _Plan(take, "Full", None, keep, base, skip_zero=True, copy_base=True)


def _diff(
    memory: GuestMemory,
    dirty: DirtyUnion,
    parent: Parent,
    origin: Origin,
) -> _Plan:
    take = dirty.collect()
    if not dirty.tracked:
        private_file = origin.base is not None
        take |= present_pages(memory, private_file=private_file)
        if private_file:  # what was given back is zero now, and not the file's
            take |= all_pages(memory) & ~mapped_from_file(memory)
    onto = parent.onto
    if onto is None:
        return _Plan(take, "Diff", parent.snapshot_id)
    keep = data_extents(onto.file.fd, memory.size) & ~take
    known = onto.file.manifest
    kind = "Full" if known is None else known.kind
    grandparent = None if known is None else known.parent_id
    return _Plan(take, kind, grandparent, keep, onto.file, copy_base=onto.copy)


# -- The pass


async def _write(
    memory: GuestMemory, fd: int, plan: _Plan, progress: Progress
) -> MemoryManifest:
    with _naming("Cannot perform set_length on the memory backing file: "):
        os.ftruncate(fd, memory.size)
    work = _Pass(memory, fd, memory.size, plan, _untouched(plan, memory.size))
    await work.run(progress)
    return work.manifest(tuple((r.gpa, len(r.buffer)) for r in memory.regions))


def _untouched(plan: _Plan, size: int) -> bytes:
    """A byte a block: whether it is as in the base file, and need not be read."""
    known = bytearray(count_blocks(size))
    if plan.base is None:
        return bytes(known)
    parent, none = plan.base.manifest, bytes(BLOCK_BYTES)
    take = plan.take.to_bytes(BLOCK_BYTES * len(known), "little")
    keep = plan.keep.to_bytes(BLOCK_BYTES * len(known), "little")
    for index in range(len(known)):
        block = slice(BLOCK_BYTES * index, BLOCK_BYTES * (index + 1))
        if take[block] == none and keep[block] != none:
            known[index] = parent is None or _within(parent.pages[block], keep[block])
    return bytes(known)


def _within(pages: bytes, others: bytes) -> bool:
    return not int.from_bytes(pages, "little") & ~int.from_bytes(others, "little")


class _Pass:
    """The structure that both halves share, and what keeps its parts alive."""

    def __init__(
        self, memory: GuestMemory | None, fd: int, size: int, plan: _Plan, known: bytes
    ) -> None:
        self._plan, self._size, self._known = plan, size, known
        blocks = count_blocks(size)
        self._memory = memory
        self._take = bytearray(plan.take.to_bytes(BLOCK_BYTES * blocks, "little"))
        self._keep = plan.keep.to_bytes(BLOCK_BYTES * blocks, "little")
        self.checksums = ffi.new("uint32_t[]", blocks)
        self.native = native = ffi.new("struct memfile_pass *")
        self._alive: list[CData] = []
        native.memory = ffi.NULL if memory is None else memory.native
        native.pages, native.out_fd = size // PAGE_SIZE, fd
        native.take = self._words(self._take)
        native.checksums = self.checksums
        native.skip_zero, native.copy_base = plan.skip_zero, plan.copy_base
        if plan.base is not None:
            native.base_fd = plan.base.fd
            native.keep = self._words(self._keep)
            native.known = self._held(ffi.from_buffer("uint8_t[]", known))
            native.check_buffer = self._held(ffi.new("uint8_t[]", lib.MEMFILE_BLOCK))
            native.copy_buffer = self._held(ffi.new("uint8_t[]", lib.MEMFILE_BLOCK))

    def _words(self, bitmap: bytes | bytearray) -> CData:
        return self._held(ffi.from_buffer("uint64_t[]", bitmap))

    def _held(self, part: CData) -> CData:
        self._alive.append(part)
        return part

    async def run(self, progress: Progress) -> None:
        """Both halves, each in a worker. HostError; progress may raise too."""
        halves = {lib.memfile_check: 0, lib.memfile_write: 0}
        if self.native.out_fd < 0:
            del halves[lib.memfile_write]
        limiter = trio.CapacityLimiter(2)

        async def half(function: CData) -> None:
            halves[function] = await trio.to_thread.run_sync(
                function, self.native, limiter=limiter
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, progress)
            async with trio.open_nursery() as workers:
                for function in halves:
                    workers.start_soon(half, function)
            nursery.cancel_scope.cancel()
        for function, number in halves.items():
            if number and number != -errno.ECANCELED:
                error = OSError(-number, os.strerror(-number))
                raise HostError(_FAILED[function] + io_error(error)) from error
        progress(self._size, self._size)

    async def _watch(self, progress: Progress) -> None:
        """Tell how far it is; whatever ends this ends the workers."""
        try:
            while True:
                blocks = self.native.written & 0x7FFFFFFF
                progress(min(blocks * lib.MEMFILE_BLOCK, self._size), self._size)
                await trio.sleep(PROGRESS_S)
        finally:
            lib.memfile_stop(self.native)

    def manifest(self, regions: tuple[tuple[int, int], ...]) -> MemoryManifest:
        """What the file holds now; of blocks that were not read, what is known."""
        plan = self._plan
        data = int.from_bytes(self._take, "little") | plan.keep
        pages = bytearray(data.to_bytes(len(self._take), "little"))
        sums = bytearray(ffi.buffer(self.checksums))
        unverified = bytearray((len(self._known) + 7) // 8)
        parent = None if plan.base is None else plan.base.manifest
        for index, known in enumerate(self._known):
            block = parent.block(index) if known and parent is not None else None
            if block is not None:
                pages[64 * index : 64 * index + 64] = block.pages
                checksum = (block.checksum or 0).to_bytes(4, "little")
                sums[4 * index : 4 * index + 4] = checksum
            if known and (block is None or block.checksum is None):
                unverified[index >> 3] |= 1 << (index & 7)
        return MemoryManifest(
            size=self._size,
            regions=regions,
            kind=plan.kind,
            parent_id=plan.parent_id,
            pages=bytes(pages),
            checksums=bytes(sums),
            unverified=bytes(unverified),
        )


@contextmanager
def _naming(prefix: str) -> Iterator[None]:
    """Makes an OSError of its body a HostError that starts as Firecracker's."""
    try:
        yield
    except OSError as error:
        raise HostError(prefix + io_error(error)) from error


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
