"""Memory files block by block, for the commands that work on files alone."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from vmmd._native import lib
from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.files import pwrite_all
from vmmd.loop.pages import data_extents
from vmmd.rust import io_error
from vmmd.state.crc32c import crc32c
from vmmd.state.manifest import BLOCK_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from vmmd.state.manifest import MemoryManifest

    Progress: TypeAlias = Callable[[int, int], None]

_BLOCK_MASK = (1 << BLOCK_SIZE // PAGE_SIZE) - 1


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at a memory file found; blocks by their index.

    ``wrong``: the pages are not those of the manifest. ``stray``: there is data
    where a Full's manifest has zero pages. ``unknown``: nobody knows what should
    be in them.
    """

    wrong: tuple[int, ...]
    stray: tuple[int, ...]
    unknown: tuple[int, ...]


def runs(pages: int) -> Iterator[tuple[int, int]]:
    """``(first, count)`` of each run of bits that are set."""
    at = 0
    while pages:
        skip = (pages & -pages).bit_length() - 1
        pages >>= skip
        count = (~pages & pages + 1).bit_length() - 1
        yield at + skip, count
        pages >>= count
        at += skip + count


class Block:
    """One block of memory in a buffer: read, overlaid, summed up, written."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(BLOCK_SIZE))

    def read(self, fd: int, index: int, pages: int, path: str) -> None:
        """Read these pages of a block over what is here. HostError."""
        for part, offset in self._parts(index, pages):
            _read(fd, part, offset, path)

    def write(self, fd: int, index: int, pages: int, path: str) -> None:
        """Write these pages to their place. HostError."""
        for part, offset in self._parts(index, pages):
            write_at(path, partial(pwrite_all, fd, part, offset))

    def checksum(self, pages: int) -> int:
        """The crc32c over these pages in order."""
        crc = 0
        for part, _ in self._parts(0, pages):
            crc = crc32c(part, crc)
        return crc

    def is_zero(self, pages: int) -> bool:
        """Whether none of these pages holds anything."""
        return not any(part.tobytes().strip(b"\0") for part, _ in self._parts(0, pages))

    def _parts(self, index: int, pages: int) -> Iterator[tuple[memoryview, int]]:
        """Each run of pages in the buffer, and its place in a file."""
        for first, count in runs(pages):
            start, end = first * PAGE_SIZE, (first + count) * PAGE_SIZE
            yield self._view[start:end], index * BLOCK_SIZE + start


def copy_pages(source: int, target: int, index: int, pages: int, path: str) -> None:
    """Copy pages of a block between files, shared where that can be. HostError."""
    for first, count in runs(pages):
        offset = index * BLOCK_SIZE + first * PAGE_SIZE
        number = lib.memfile_copy(source, target, offset, count * PAGE_SIZE)
        if number:
            error = OSError(-number, os.strerror(-number))
            raise HostError(f"{path}: cannot copy: {io_error(error)}") from error


def write_at(path: str, call: Callable[[], object]) -> None:
    """Call; HostError naming ``path`` for its OSError."""
    try:
        call()
    except OSError as error:
        raise HostError(f"{path}: cannot write: {io_error(error)}") from error


def verify(
    fd: int, path: str, manifest: MemoryManifest, progress: Progress
) -> Verified:
    """Compare a memory file with its manifest. HostError if it cannot be read."""
    held = Block()
    wrong, stray, unknown = [], [], []
    extents = data_extents(fd, manifest.size) if manifest.kind == "Full" else 0
    for block in manifest.blocks:
        progress(block.index * BLOCK_SIZE, manifest.size)
        pages = int.from_bytes(block.pages, "little")
        more = extents >> block.index * BLOCK_SIZE // PAGE_SIZE & _BLOCK_MASK & ~pages
        held.read(fd, block.index, pages | more, path)
        if block.checksum is None:
            unknown.append(block.index)
        elif held.checksum(pages) != block.checksum:
            wrong.append(block.index)
        if not held.is_zero(more):
            stray.append(block.index)
    progress(manifest.size, manifest.size)
    return Verified(tuple(wrong), tuple(stray), tuple(unknown))


def _read(fd: int, part: memoryview, offset: int, path: str) -> None:
    while part:
        try:
            length = os.preadv(fd, [part], offset)
        except OSError as error:
            raise HostError(f"{path}: cannot read: {io_error(error)}") from error
        if not length:
            raise HostError(f"{path}: has become shorter")
        part, offset = part[length:], offset + length
