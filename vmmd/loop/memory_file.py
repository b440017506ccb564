"""Writing guest memory to a memory file: which pages, and what they come to.

The pages are found without reading them (``memory_file.c``); workers look for
zero pages, sum up the others and write them. The guest is paused all the while,
and the loop serves.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.files import pwrite_all
from vmmd.loop.memory_pass import Pass, Plan, untouched
from vmmd.loop.origin import NOWHERE, BaseFile, Origin
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

    from vmmd.loop.dirty import DirtyUnion
    from vmmd.loop.memory_pass import Progress as Progress
    from vmmd.memory import GuestMemory


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


def _silent(done: int, size: int) -> None:
    """Progress that nobody wants."""


def _nothing() -> None:
    """There is nothing to do meanwhile."""


def full_plan(memory: GuestMemory, origin: Origin = NOWHERE) -> Plan:
    """All of memory: its data pages. Blocks for milliseconds."""
    base = origin.base
    if base is None:
        take = all_pages(memory) if origin.served else present_pages(memory)
        return Plan(take, "Full", None, skip_zero=True)
    take = present_pages(memory, private_file=True)
    keep = data_extents(base.fd, memory.size) & mapped_from_file(memory) & ~take
    if base.manifest is not None and base.manifest.parent_id is not None:
        # It was merged onto its parent by somebody: its manifest has but a part.
        base = BaseFile(base.fd)
    return Plan(take, "Full", None, keep, base, skip_zero=True, copy_base=True)


def diff_plan(
    memory: GuestMemory,
    dirty: DirtyUnion,
    parent: Parent,
    origin: Origin = NOWHERE,
) -> Plan:
    """The pages that are not the parent's.

    The union is not committed: that is the caller's, once the files have their
    names. With tracking off these are the pages that are present or swapped and
    not the file's; the parent is then the snapshot that memory was mapped from.
    """
    take = dirty.collect()
    if not dirty.tracked:
        private_file = origin.base is not None
        take |= present_pages(memory, private_file=private_file)
        if private_file:  # what was given back is zero now, and not the file's
            take |= all_pages(memory) & ~mapped_from_file(memory)
    onto = parent.onto
    if onto is None:
        return Plan(take, "Diff", parent.snapshot_id)
    keep = data_extents(onto.file.fd, memory.size) & ~take
    known = onto.file.manifest
    kind = "Full" if known is None else known.kind
    grandparent = None if known is None else known.parent_id
    return Plan(
        *(take, kind, grandparent, keep, onto.file),
        copy_base=onto.copy,
        journal=not onto.copy,
    )


async def write(
    memory: GuestMemory,
    fd: int,
    plan: Plan,
    progress: Progress = _silent,
    meanwhile: Callable[[], object] = _nothing,
) -> MemoryManifest:
    """Write memory to ``fd``, an empty file: the plan's pages, the rest holes.

    Returns the manifest of the file, of a journal that of the merged file. HostError
    with Firecracker's text if the file cannot take it (no space, size limit); what
    was written is then of no use. Cancelled, it ends within a block. ``meanwhile``
    is called once, while memory is written. fsync is the caller's.
    """
    with _naming("Cannot perform set_length on the memory backing file: "):
        os.ftruncate(fd, memory.size)
    work = Pass(memory, fd, memory.size, plan, untouched(plan, memory.size))
    await work.run(progress, meanwhile)
    made = work.manifest(tuple((r.gpa, len(r.buffer)) for r in memory.regions))
    if plan.journal:
        bitmap = plan.take.to_bytes(BLOCK_BYTES * made.block_count, "little")
        with _naming("Cannot write memory file: "):
            pwrite_all(fd, bitmap, made.size)
    return made


async def verify(fd: int, manifest: MemoryManifest) -> tuple[int, ...]:
    """The blocks of a memory file that are not as its manifest says.

    Reads every data page, and of the others that they are holes or zero is not
    asked. HostError if the file cannot be read.
    """
    pages = int.from_bytes(manifest.pages, "little")
    plan = Plan(0, manifest.kind, manifest.parent_id, pages, BaseFile(fd))
    work = Pass(None, -1, manifest.size, plan, bytes(manifest.block_count))
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
    plan = Plan(0, "Diff", None, pages, BaseFile(journal_fd), copy_base=True)
    Pass(None, target_fd, size, plan, known=bytes([1]) * count_blocks(size)).work()


def _journal_pages(fd: int, size: int) -> int:
    length = BLOCK_BYTES * count_blocks(size)
    bitmap = os.pread(fd, length, size)
    if len(bitmap) != length:
        raise OSError(errno.EIO, "the journal ends early")
    return int.from_bytes(bitmap, "little")


@contextmanager
def _naming(prefix: str) -> Iterator[None]:
    """Makes an OSError of its body a HostError that starts as Firecracker's."""
    try:
        yield
    except OSError as error:
        raise HostError(prefix + io_error(error)) from error
