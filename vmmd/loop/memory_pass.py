"""One pass over a memory file: the threads of ``memory_file.c``.

A plan says which pages are taken from memory and which are a base file's; a pass
carries it out and makes the manifest of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from vmmd._native import ffi, lib
from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.eventfd import EventFd
from vmmd.loop.pages import BLOCK_BYTES
from vmmd.memory import PAGE_SIZE
from vmmd.rust import io_error
from vmmd.state.manifest import BLOCK_SIZE, MemoryManifest, count_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from vmmd._native import CData
    from vmmd.loop.origin import BaseFile
    from vmmd.memory import GuestMemory

    Progress: TypeAlias = Callable[[int, int], None]
    """Called with bytes of the file passed, and its size."""

PROGRESS_S = 0.05
TWO_THREADS_PAGES = 1024
"""Below 4 MiB a second thread costs more than it saves."""

_CANNOT_DUMP = "Cannot write memory file: Cannot dump memory: Guest memory error: "


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass: ``take`` from memory, ``keep`` of ``base``; sets of pages.

    ``journal``: what is written is to be merged into the base.
    """

    take: int
    kind: str
    parent_id: str | None
    keep: int = 0
    base: BaseFile | None = None
    skip_zero: bool = False
    copy_base: bool = False
    journal: bool = False

    @property
    def bytes_needed(self) -> int:
        """At most so many does it need on disk."""
        kept = self.keep.bit_count() if self.copy_base else 0
        return (self.take.bit_count() + kept) * PAGE_SIZE


def untouched(plan: Plan, size: int) -> bytes:
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


def _raise(number: int, prefix: str) -> None:
    if number:
        error = OSError(-number, os.strerror(-number))
        raise HostError(prefix + io_error(error)) from error


def _within(pages: bytes, others: bytes) -> bool:
    return not int.from_bytes(pages, "little") & ~int.from_bytes(others, "little")


def _nothing() -> None:
    """There is nothing to do meanwhile."""


class Pass:
    """The structure that both halves share, and what keeps its parts alive."""

    def __init__(
        self, memory: GuestMemory | None, fd: int, size: int, plan: Plan, known: bytes
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
        native.checked = self._held(ffi.new("uint8_t[]", blocks))
        native.checksums = self.checksums
        native.skip_zero, native.copy_base = plan.skip_zero, plan.copy_base
        if plan.base is not None:
            native.base_fd = plan.base.fd
            native.keep = self._words(self._keep)
            native.known = self._held(ffi.from_buffer("uint8_t[]", known))
            for index in range(lib.MEMFILE_THREADS):
                buffer = self._held(ffi.new("uint8_t[]", lib.MEMFILE_BLOCK))
                native.kept[index] = buffer

    def _words(self, bitmap: bytes | bytearray) -> CData:
        return self._held(ffi.from_buffer("uint64_t[]", bitmap))

    def _held(self, part: CData) -> CData:
        self._alive.append(part)
        return part

    async def run(
        self, progress: Progress, meanwhile: Callable[[], object] = _nothing
    ) -> None:
        """Let threads do it, and do ``meanwhile`` here.

        HostError; what either raises, or a cancel, ends the threads.
        """
        ended = EventFd()
        self.native.end_fd = ended.fd
        try:
            progress(0, self._size)
            pages = (self._plan.take | self._plan.keep).bit_count()
            threads = lib.MEMFILE_THREADS if pages >= TWO_THREADS_PAGES else 1
            number = lib.memfile_start(self.native, threads)
            _raise(number, "Cannot write memory file: ")
            await self._watch(ended, progress, meanwhile)
        finally:
            ended.close()
        _raise(self.native.read_error, "Cannot read the base memory file: ")
        _raise(self.native.write_error, _CANNOT_DUMP)
        progress(self._size, self._size)

    def work(self) -> None:
        """The same at once, in this thread. OSError."""
        native = self.native
        lib.memfile_work(native)
        if number := native.read_error or native.write_error:
            raise OSError(-number, os.strerror(-number))

    @property
    def _begun(self) -> int:
        """Bytes of the file before the block that is being written."""
        begun: int = self.native.begun
        return max(begun - 1, 0) * BLOCK_SIZE

    async def _watch(
        self, ended: EventFd, progress: Progress, meanwhile: Callable[[], object]
    ) -> None:
        """Until the threads have ended; whatever ends this ends them."""
        running = self.native.threads
        try:
            meanwhile()
            while running:
                with trio.move_on_after(PROGRESS_S):
                    running -= await ended.wait()
                progress(self._begun, self._size)
        finally:
            lib.memfile_stop(self.native)
            with trio.CancelScope(shield=True):
                while running:
                    running -= await ended.wait()
            lib.memfile_join(self.native)

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
