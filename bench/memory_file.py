"""Writing guest memory against a C loop that writes the same bytes.

Both write a fresh temporary file, fsync and rename it. The C loop knows its pages
and neither finds them nor looks into them. On tmpfs and on the disk of VMMD_BENCH_DISK
(else of the system's temporary files).
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from bench.harness import Bench, build_twin
from vmmd.loop.dirty import DirtyUnion
from vmmd.loop.files import map_guest_memory, unmap_guest_memory
from vmmd.loop.memory_file import Parent, diff_plan, full_plan, write
from vmmd.memory import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmmd.memory import GuestMemory

CHUNK = 2 << 20
FOLDERS = {
    "tmpfs": "/dev/shm",
    "disk": os.environ.get("VMMD_BENCH_DISK", tempfile.gettempdir()),
}


@dataclass(frozen=True)
class Load:
    """``pages`` of a guest of ``size_mib`` (0: all), in runs of ``run`` pages."""

    size_mib: int
    pages: int
    run: int
    diff: bool = False

    def runs(self) -> Iterator[tuple[int, int]]:
        """Address and length of each run."""
        size, length, step = self.size_mib << 20, self.run * PAGE_SIZE, CHUNK
        if self.pages:
            step = size // (self.pages // self.run) & -PAGE_SIZE
        else:
            length = CHUNK
        for at in range(0, size - length + 1, step):
            yield at, length


LOADS = {
    "full-dense": Load(256, 0, 512),
    "full-10-percent": Load(1024, 26214, 6),
    "diff-10-mib": Load(1024, 2560, 4, diff=True),
}


@functools.cache
def _memory(load: Load) -> tuple[GuestMemory, bytes]:
    """The guest and which pages it wrote; kept for the same load's next turn."""
    for old in _kept:
        unmap_guest_memory(old)
    _kept.clear()
    memory = map_guest_memory([(0, load.size_mib << 20)])
    noise = os.urandom(CHUNK)
    for at, length in load.runs():
        memory.write(at, noise[:length])
    _kept.append(memory)
    return memory, memory.dirty_bitmaps()[0]


_kept: list[GuestMemory] = []


@functools.cache
def _twin() -> Path:
    return build_twin("memory_file.c")


async def _create(load: Load, folder: str) -> float:
    memory, written = _memory(load)
    dirty = DirtyUnion(memory, lambda _slot, _size: written)
    start = time.perf_counter()
    fd = os.open(f"{folder}/ours.part", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    if load.diff:
        plan = diff_plan(memory, dirty, Parent("before"))
    else:
        plan = full_plan(memory)
    await write(memory, fd, plan)
    await trio.to_thread.run_sync(os.fsync, fd)
    os.close(fd)
    os.rename(f"{folder}/ours.part", f"{folder}/ours")
    took = time.perf_counter() - start
    os.unlink(f"{folder}/ours")
    return took * 1e3


def _ours(load: Load, where: str) -> float:
    with tempfile.TemporaryDirectory(dir=FOLDERS[where]) as folder:
        return trio.run(_create, load, folder)


def _theirs(load: Load, where: str) -> float:
    with tempfile.TemporaryDirectory(dir=FOLDERS[where]) as folder:
        numbers = [str(load.size_mib), str(load.pages), str(load.run)]
        command = [str(_twin()), folder, *numbers]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)


BENCHES = tuple(
    Bench(
        name=f"memory-{name}-{where}",
        unit="ms",
        ours=functools.partial(_ours, load, where),
        twin=functools.partial(_theirs, load, where),
        goal=1.10 if name == "full-dense" else 1.3,
    )
    for name, load in LOADS.items()
    for where in FOLDERS
)
