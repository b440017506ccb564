"""Sets of guest pages, and which pages memory and files have.

A set is a plain int: bit *n* is page *n* of the memory file, which has the regions
end to end. No page is read to find out: that would map it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.errors import HostError
from vmmd.memory import PAGE_SIZE
from vmmd.rust import io_error
from vmmd.state.manifest import BLOCK_PAGES, count_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmmd.memory import GuestMemory

BLOCK_BYTES = BLOCK_PAGES // 8
"""Of a block's bitmap."""


def first_pages(memory: GuestMemory) -> tuple[int, ...]:
    """The page of the memory file at which each region starts."""
    firsts, page = [], 0
    for region in memory.regions:
        firsts.append(page)
        page += len(region.buffer) // PAGE_SIZE
    return tuple(firsts)


def join(memory: GuestMemory, bitmaps: Sequence[bytes]) -> int:
    """Bitmaps per region, LSB first, as one set of the file's pages."""
    pages = 0
    firsts = first_pages(memory)
    for region, first, bitmap in zip(memory.regions, firsts, bitmaps, strict=True):
        mask = (1 << len(region.buffer) // PAGE_SIZE) - 1
        pages |= (int.from_bytes(bitmap, "little") & mask) << first
    return pages


def all_pages(memory: GuestMemory) -> int:
    """Every page."""
    return (1 << memory.size // PAGE_SIZE) - 1


def present_pages(
    memory: GuestMemory, *, private_file: bool = False, scan: bool = True
) -> int:
    """Pages that are present or swapped; with ``private_file`` and not the file's.

    All pages where the kernel does not tell (no /proc in a jail): never too few.
    ``scan``: by PAGEMAP_SCAN where there is one.
    """
    bitmap = bytearray(BLOCK_BYTES * count_blocks(memory.size))
    native = ffi.from_buffer("uint64_t[]", bitmap, require_writable=True)
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return all_pages(memory)
    try:
        for index, first in enumerate(first_pages(memory)):
            region = memory.native.region[index]
            where = (region.host, region.size, private_file, scan)
            if lib.memfile_present(pagemap, *where, native, first):
                return all_pages(memory)
    finally:
        os.close(pagemap)
    return int.from_bytes(bitmap, "little")


def data_extents(fd: int, size: int) -> int:
    """Pages of a file that are not wholly in holes. HostError if it has no extents."""
    bitmap = bytearray(BLOCK_BYTES * count_blocks(size))
    native = ffi.from_buffer("uint64_t[]", bitmap, require_writable=True)
    if number := lib.memfile_extents(fd, size // PAGE_SIZE, native):
        error = OSError(-number, os.strerror(-number))
        raise HostError(f"Cannot write memory file: the base: {io_error(error)}")
    return int.from_bytes(bitmap, "little")


def mapped_from_file(memory: GuestMemory) -> int:
    """Pages of ranges that still show a file.

    Where memory was given back the range is anonymous, and zero until written.
    """
    pages, files = 0, tuple(_file_ranges())
    for index, first in enumerate(first_pages(memory)):
        region = memory.native.region[index]
        host, size = int(ffi.cast("uintptr_t", region.host)), int(region.size)
        for start, end in files:
            low, high = max(start, host), min(end, host + size)
            if low < high:
                run = (1 << (high - low) // PAGE_SIZE) - 1
                pages |= run << first + (low - host) // PAGE_SIZE
    return pages


def _file_ranges() -> Iterator[tuple[int, int]]:
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                addresses, _, _, _, inode = line.split(maxsplit=5)[:5]
                if inode != b"0":
                    start, end = addresses.split(b"-")
                    yield int(start, 16), int(end, 16)
    except OSError:  # nor is there a pagemap: all pages are taken from memory
        return
