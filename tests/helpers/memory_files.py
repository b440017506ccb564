"""Memory files and their snapshots as a model: a byte a page."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.helpers.state_file import HEADER
from vmmd.loop.commit import set_id
from vmmd.loop.memory_file import Parent, diff_plan, full_plan, write
from vmmd.loop.origin import NOWHERE, Origin
from vmmd.state.crc32c import crc32c
from vmmd.state.manifest import BLOCK_PAGES, BLOCK_SIZE, PAGE_SIZE, MemoryManifest
from vmmd.state.snapshot import Entry, SnapshotFile, canonical, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vmmd.loop.dirty import DirtyUnion
    from vmmd.loop.memory_file import Progress
    from vmmd.memory import GuestMemory


def nobody(done: int, size: int) -> None:
    """Progress that nobody wants."""


async def write_full(
    memory: GuestMemory,
    fd: int,
    origin: Origin = NOWHERE,
    progress: Progress = nobody,
) -> MemoryManifest:
    """A Full of memory as it is."""
    return await write(memory, fd, full_plan(memory, origin), progress)


async def write_diff(
    memory: GuestMemory,
    fd: int,
    dirty: DirtyUnion,
    parent: Parent,
    origin: Origin = NOWHERE,
    progress: Progress = nobody,
) -> MemoryManifest:
    """A Diff of memory as it is."""
    plan = diff_plan(memory, dirty, parent, origin)
    return await write(memory, fd, plan, progress)


@dataclass(frozen=True)
class FileModel:
    """``pages``: the data pages and the byte that each is full of."""

    blocks: int
    pages: Mapping[int, int] = field(default_factory=dict)
    parent_id: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.blocks * BLOCK_SIZE

    def content(self) -> bytes:
        """The file's bytes."""
        whole = bytearray(self.size)
        for page, byte in self.pages.items():
            start = page * PAGE_SIZE
            whole[start : start + PAGE_SIZE] = bytes([byte]) * PAGE_SIZE
        return bytes(whole)

    def over(self, base: FileModel) -> FileModel:
        """This one merged into its base."""
        return replace(base, pages={**base.pages, **self.pages})

    @property
    def manifest(self) -> MemoryManifest:
        """What the state file says of it."""
        sums = [0] * self.blocks
        for page in sorted(self.pages):
            data = bytes([self.pages[page]]) * PAGE_SIZE
            sums[page // BLOCK_PAGES] = crc32c(data, sums[page // BLOCK_PAGES])
        bits = sum(1 << page for page in self.pages)
        return MemoryManifest(
            size=self.size,
            regions=((0, self.size),),
            kind="Full" if self.parent_id is None else "Diff",
            parent_id=self.parent_id,
            pages=bits.to_bytes(self.size // PAGE_SIZE // 8, "little"),
            checksums=b"".join(crc.to_bytes(4, "little") for crc in sums),
            unverified=bytes((self.blocks + 7) // 8),
        )


@contextmanager
def written(path: Path, model: FileModel, snapshot_id: str = "5eed") -> Iterator[int]:
    """The memory file, sparse, and named; open to read and write."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, model.size)
        for page, byte in model.pages.items():
            os.pwrite(fd, bytes([byte]) * PAGE_SIZE, page * PAGE_SIZE)
        set_id(fd, snapshot_id)
        yield fd
    finally:
        os.close(fd)


def save(folder: Path, snapshot_id: str, model: FileModel, *entries: Entry) -> None:
    """A snapshot's two files."""
    folder.mkdir(exist_ok=True)
    manifest = model.manifest
    header = replace(
        HEADER,
        snapshot_id=snapshot_id,
        parent_id=model.parent_id,
        memory=canonical(manifest.to_plain()),
    )
    known = entries or (Entry("power", "", 1, {"sleep_control": len(snapshot_id)}),)
    (folder / "vm.state").write_bytes(encode(SnapshotFile(header, known)))
    with written(folder / "vm.mem", model, snapshot_id):
        pass
