"""Diffs merged into the snapshot that they are relative to, on files alone.

The base becomes the last diff's snapshot: its state, and all of its memory. Until
the last moment it is what it was; a kill on the way leaves what ``vmmd snapshot
check`` ends.
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from vmmd.errors import HostError, SnapshotError
from vmmd.frozen import dataclass
from vmmd.loop.blocks import Block, copy_pages, write_at
from vmmd.loop.files import pwrite_all
from vmmd.loop.origin import open_memory_file
from vmmd.loop.snapshot_files import SnapshotFiles
from vmmd.state.manifest import BLOCK_SIZE, PAGE_SIZE, MemoryManifest
from vmmd.state.snapshot import SnapshotFile, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmmd.loop.blocks import Progress
    from vmmd.loop.memory_file import Onto
    from vmmd.state.manifest import Block as ManifestBlock

_BLOCK_BYTES = BLOCK_SIZE // PAGE_SIZE // 8


@dataclass(frozen=True, slots=True)
class Part:
    """A snapshot that is merged: its paths, and what its state file says."""

    state: str
    memory: str
    file: SnapshotFile

    @property
    def id(self) -> str:
        """Its snapshot's id."""
        return self.file.header.snapshot_id


def chain(base: Part, diffs: Sequence[Part]) -> tuple[Part, ...]:
    """The diffs that are still to be merged: what the base has already is left out.

    SnapshotError if one is not relative to the one before.
    """
    ids = [diff.id for diff in diffs]
    left = diffs[ids.index(base.id) + 1 :] if base.id in ids else diffs
    before = base
    for diff in left:
        manifest = diff.file.header.manifest
        if manifest.kind != "Diff":
            raise SnapshotError(f"{diff.state}: is a Full: it needs no base")
        if manifest.parent_id != before.id:
            raise SnapshotError(
                f"{diff.state}: is relative to snapshot {manifest.parent_id}, "
                f"but {before.state} is {before.id}: give the diffs in their order, "
                "none left out"
            )
        if manifest.regions != base.file.header.manifest.regions:
            raise SnapshotError(f"{diff.state}: regions are not those of {base.state}")
        before = diff
    return tuple(left)


def _nothing(step: str) -> None:
    """Nobody watches the steps."""


async def rebase(
    base: Part,
    diffs: Sequence[Part],
    progress: Progress,
    at_step: Callable[[str], None] = _nothing,
) -> MemoryManifest:
    """Merge what :func:`chain` gave, at least one diff; the memory's new manifest.

    HostError and SnapshotError name the file; the base is then as it was.
    """
    last = diffs[-1]
    in_use = {
        path: f"diff {diff.state}"
        for diff in diffs
        for path in (diff.state, diff.memory)
    }
    manifest = base.file.header.manifest
    with (
        ExitStack() as opened,
        SnapshotFiles.check(base.state, base.memory, last.id, in_use, at_step) as files,
    ):
        fds = [_open(diff, opened) for diff in diffs]
        onto = await files.find_onto(manifest.size, base.id, manifest)
        if onto is None:
            raise HostError(f"{base.memory}: is not of snapshot {base.id}")
        merge = _Merge(base, onto, tuple(zip(diffs, fds, strict=True)))
        files.check_space(merge.bytes_needed)
        out = await files.open_memory()
        made = await trio.to_thread.run_sync(merge.run, out, progress)
        header = dataclasses.replace(
            last.file.header, parent_id=made.parent_id, memory=made.to_plain()
        )
        with trio.CancelScope(shield=True):
            await files.commit(encode(SnapshotFile(header, last.file.entries)))
    return made


def _open(diff: Part, opened: ExitStack) -> int:
    try:
        fd = open_memory_file(diff.memory, diff.file.header.manifest.size, diff.id)
    except HostError as error:
        raise HostError(f"{diff.memory}: {error}") from error
    opened.callback(os.close, fd)
    return fd


class _Merge:
    """One merge: into a copy of the base's memory, or into a journal for it."""

    def __init__(
        self, base: Part, onto: Onto, diffs: tuple[tuple[Part, int], ...]
    ) -> None:
        self._base, self._onto = base, onto
        self._manifest = base.file.header.manifest
        self._diffs = [(part, part.file.header.manifest, fd) for part, fd in diffs]
        self._block = Block()

    @property
    def bytes_needed(self) -> int:
        """At most so many bytes are written."""
        pages = sum(manifest.data_pages for _, manifest, _ in self._diffs)
        return (pages + self._manifest.data_pages * self._onto.copy) * PAGE_SIZE

    def run(self, out: int, progress: Progress) -> MemoryManifest:
        """Write it all to ``out``; what memory is then."""
        manifest, path = self._manifest, self._base.memory
        write_at(path, lambda: os.ftruncate(out, manifest.size))
        pages, sums, journal, unknown = bytearray(), bytearray(), bytearray(), 0
        for block in manifest.blocks:
            progress(block.index * BLOCK_SIZE, manifest.size)
            mine, taken = _set(block), self._taken(block.index)
            checksum = self._merge(block, mine, taken) if taken else block.checksum
            self._write(out, block.index, mine, taken)
            pages += (mine | taken).to_bytes(_BLOCK_BYTES, "little")
            journal += taken.to_bytes(_BLOCK_BYTES, "little")
            sums += (checksum or 0).to_bytes(4, "little")
            unknown |= (checksum is None) << block.index
        if not self._onto.copy:  # the bitmap makes it a journal
            write_at(path, lambda: pwrite_all(out, journal, manifest.size))
        progress(manifest.size, manifest.size)
        return dataclasses.replace(
            manifest,
            pages=bytes(pages),
            checksums=bytes(sums),
            unverified=unknown.to_bytes(len(manifest.unverified), "little"),
        )

    def _taken(self, index: int) -> int:
        """The pages of a block that some diff has."""
        taken = 0
        for _, manifest, _ in self._diffs:
            taken |= _set(manifest.block(index))
        return taken

    def _merge(self, block: ManifestBlock, mine: int, taken: int) -> int:
        """Lay the diffs over a block of the base; its checksum then."""
        held, base, index = self._block, self._base, block.index
        held.read(self._onto.file.fd, index, mine, base.memory)
        _check(base, block, held.checksum(mine))
        for diff, manifest, fd in self._diffs:
            theirs = manifest.block(index)
            held.read(fd, index, _set(theirs), diff.memory)
            _check(diff, theirs, held.checksum(_set(theirs)))
        return held.checksum(mine | taken)

    def _write(self, out: int, index: int, mine: int, taken: int) -> None:
        path = self._base.memory
        if taken:
            wanted = mine | taken if self._onto.copy else taken
            self._block.write(out, index, wanted, path)
        elif self._onto.copy:
            copy_pages(self._onto.file.fd, out, index, mine, path)


def _set(block: ManifestBlock) -> int:
    return int.from_bytes(block.pages, "little")


def _check(part: Part, block: ManifestBlock, checksum: int) -> None:
    if block.checksum not in (None, checksum):
        raise SnapshotError(
            f"{part.memory}: block {block.index} is not what {part.state} says of it: "
            "`vmmd snapshot verify` looks at all of them"
        )
