"""A process that saves a small memory, and dies where it is told to.

    python -m tests.helpers.saver FOLDER ID KIND STEP

Writes FOLDER/s and FOLDER/m. The state file is the id; the memory is that of
``PAGES[ID]``. KIND is Full or Diff (of "old"); at STEP it kills itself.
"""

from __future__ import annotations

import os
import signal
import sys

import trio

from tests.helpers.memory_files import write_diff, write_full
from vmmd.loop.dirty import DirtyUnion
from vmmd.loop.files import map_guest_memory
from vmmd.loop.memory_file import Parent
from vmmd.loop.snapshot_files import SnapshotFiles
from vmmd.memory import PAGE_SIZE

REGIONS = ((0, 4 << 20),)
SIZE = 4 << 20
PAGES = {"old": {1: 1, 2: 2, 900: 3}, "new": {1: 1, 2: 7, 5: 8, 900: 3}}


def content(snapshot_id: str) -> bytes:
    """The memory of a snapshot."""
    whole = bytearray(SIZE)
    for page, byte in PAGES[snapshot_id].items():
        start = page * PAGE_SIZE
        whole[start : start + PAGE_SIZE] = bytes([byte]) * PAGE_SIZE
    return bytes(whole)


async def save(folder: str, snapshot_id: str, kind: str, last_step: str) -> None:
    """Save it, up to ``last_step``."""

    def at_step(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    paths = (f"{folder}/s", f"{folder}/m")
    memory = map_guest_memory(REGIONS)
    dirty = DirtyUnion(memory, lambda _slot, size: bytes(size // PAGE_SIZE // 8))
    for page, byte in PAGES["old"].items():
        memory.write(page * PAGE_SIZE, bytes([byte]) * PAGE_SIZE)
    dirty.collect()
    dirty.commit()
    for page, byte in PAGES[snapshot_id].items():
        if PAGES["old"].get(page) != byte:
            memory.write(page * PAGE_SIZE, bytes([byte]) * PAGE_SIZE)
    files = SnapshotFiles.check(*paths, snapshot_id, at_step=at_step)
    with files:
        onto = await files.find_onto(SIZE, "old", None) if kind == "Diff" else None
        fd = await files.open_memory()
        if kind == "Diff":
            parent = Parent("old", onto)
            await write_diff(memory, fd, dirty, parent)
        else:
            await write_full(memory, fd)
        await files.commit(snapshot_id.encode())


if __name__ == "__main__":
    folder, snapshot_id, kind, step = sys.argv[1:]
    trio.run(save, folder, snapshot_id, kind, step)
