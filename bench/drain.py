"""The block drain from Python against the same C loop without Python.

85 reads of 4 KiB, each of three descriptors, in a queue of 256 over 64 MiB of
touched guest memory, from a file in memory; only the drain is timed.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.harness import HERE, Bench, build_twin
from vmmd.bus import RegisterPage
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.block import Backing, BlockDevice, BlockState, Stop
from vmmd.virtio.device import VERSION_1, Activation, IrqLine
from vmmd.virtio.ring import Ring

MEMORY, FILE, BLOCK, BATCH, QUEUE = 64 << 20, 64 << 20, 4096, 85, 256
DESC, AVAIL, USED, HEADERS, DATA = 0x1000, 0x2000, 0x3000, 0x10000, 0x100000
ROUNDS = 400


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vmmd-bench-", dir="/dev/shm")


@functools.cache
def _file() -> Path:
    path = Path(_folder().name) / "disk.img"
    path.write_bytes(os.urandom(1 << 20) * (FILE >> 20))
    return path


class _Guest:
    """The driver's side: descriptors once, then a batch at a time."""

    def __init__(self) -> None:
        mapping = mmap.mmap(-1, MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory = GuestMemory([Region(0, memoryview(mapping))])
        self.memory.write(0, bytes(MEMORY))
        self.posted = 0
        self.seed = 88172645463325252
        self.heads = [3 * i for i in range(BATCH)] + [0] * (QUEUE - BATCH)
        self.headers = iter([self._batch() for _ in range(ROUNDS)])
        for i in range(BATCH):
            self._describe(i)

    def post_batch(self) -> None:
        """Make one batch of random reads available, in three stores."""
        turned = [
            *self.heads[-self.posted % QUEUE :],
            *self.heads[: -self.posted % QUEUE],
        ]
        self.memory.write(HEADERS, next(self.headers))
        self.memory.write(AVAIL + 4, struct.pack(f"<{QUEUE}H", *turned))
        self.posted += BATCH
        self.memory.store_u16(AVAIL + 2, self.posted & 0xFFFF)

    def _batch(self) -> bytes:
        return b"".join(
            struct.pack("<IIQ48x", 0, 0, self._sector()) for _ in range(BATCH)
        )

    def _sector(self) -> int:
        self.seed = (self.seed * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.seed >> 33) % (FILE // BLOCK) * (BLOCK // 512)

    def _describe(self, i: int) -> None:
        rows = (
            (HEADERS + 64 * i, 16, 1, 3 * i + 1),
            (DATA + BLOCK * i, BLOCK, 3, 3 * i + 2),
            (HEADERS + 64 * i + 16, 1, 2, 0),
        )
        self.memory.write(
            DESC + 48 * i, b"".join(struct.pack("<QIHH", *row) for row in rows)
        )


def ours() -> float:
    """Nanoseconds a request through ``BlockDevice.drain``, median of the rounds."""
    guest, fd = _Guest(), os.open(_file(), os.O_RDONLY)
    state = BlockState(drive_id="d", path_on_host="")
    device = BlockDevice(state, Backing(fd, FILE, b""))
    # A neighbour that takes the CPU for a while must not cut a batch in two.
    device.native.spin_ns, device.native.max_ns = 0, 10**9
    ring = Ring(guest.memory)
    ring.configure(QUEUE, DESC, AVAIL, USED, event_idx=False)
    device.activate(
        Activation(guest.memory, (ring,), VERSION_1, IrqLine(RegisterPage()))
    )
    rounds = []
    for _ in range(ROUNDS):
        guest.post_batch()
        start = time.perf_counter_ns()
        stop = device.drain()
        rounds.append((time.perf_counter_ns() - start) / BATCH)
        if stop is not Stop.EMPTY:
            raise RuntimeError(f"the drain stopped with {stop.name}")
    os.close(fd)
    return median(rounds)


@functools.cache
def _program() -> Path:
    root = HERE.parent / "vmmd"
    sources = [root / "memory.c", *sorted((root / "virtio").glob("*.c"))]
    return build_twin("drain.c", *map(str, sources))


def _twin(mode: str) -> float:
    command = [str(_program()), mode, str(_file()), str(ROUNDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


BENCHES = (
    Bench("drain_4k", "ns", ours, functools.partial(_twin, "same"), goal=1.10),
    Bench("drain_4k_plain", "ns", ours, functools.partial(_twin, "plain")),
)
