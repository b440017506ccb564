"""Sending from Python's drain against the least that a C loop can do.

256 frames of 64 bytes a batch, to a tap in a network namespace of its own; only
the drain is timed. Needs root.
"""

from __future__ import annotations

import functools
import mmap
import struct
import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING

from bench.harness import Bench, build_twin
from tests.helpers.network import own_network, set_up
from vmmd.bus import RegisterPage
from vmmd.loop.tap import Tap
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.device import VERSION_1, Activation, IrqLine
from vmmd.virtio.net import HEADER_BYTES, NetDevice, NetState, Stop
from vmmd.virtio.ring import Ring

if TYPE_CHECKING:
    from pathlib import Path

MEMORY, QUEUE, ROUNDS = 4 << 20, 256, 400
DESC, AVAIL, USED, RX, BUFFERS = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000
FRAME = bytes(HEADER_BYTES) + b"\2" * 12 + b"\x88\xb5" + bytes(50)


def _device(tap: Tap, memory: GuestMemory) -> NetDevice:
    """An active device whose transmit ring names every buffer once."""
    for i in range(QUEUE):
        memory.write(BUFFERS + 4096 * i, FRAME)
        row = struct.pack("<QIHH", BUFFERS + 4096 * i, len(FRAME), 0, 0)
        memory.write(DESC + 16 * i, row)
    memory.write(AVAIL + 4, struct.pack(f"<{QUEUE}H", *range(QUEUE)))
    receive, transmit = Ring(memory), Ring(memory)
    receive.configure(1, RX, RX + 0x100, RX + 0x200, event_idx=False)
    transmit.configure(QUEUE, DESC, AVAIL, USED, event_idx=False)
    device = NetDevice.restore(NetState(iface_id="n", host_dev_name=""), tap.fd)
    # A neighbour that takes the CPU for a while must not cut a batch in two.
    device.native.spin_ns, device.native.max_ns = 0, 10**9
    irq = IrqLine(RegisterPage())
    device.activate(Activation(memory, (receive, transmit), VERSION_1, irq))
    return device


def ours() -> float:
    """Nanoseconds a frame through ``NetDevice.drain_tx``, median of the rounds."""
    mapping = mmap.mmap(-1, MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory, tap = GuestMemory([Region(0, memoryview(mapping))]), _tap()
    device, rounds = _device(tap, memory), []
    for number in range(1, ROUNDS + 1):
        memory.store_u16(AVAIL + 2, number * QUEUE & 0xFFFF)
        start = time.perf_counter_ns()
        stop = device.drain_tx()
        rounds.append((time.perf_counter_ns() - start) / QUEUE)
        if stop is not Stop.EMPTY:
            raise RuntimeError(f"the drain stopped with {stop.name}")
    return median(rounds)


@functools.cache
def _tap() -> Tap:
    """A tap that is up, in a namespace that ends with the process."""
    with own_network():
        tap = Tap.open("bench0")
        set_up("bench0")
    return tap


@functools.cache
def _program() -> Path:
    return build_twin("net.c")


def _twin() -> float:
    command = [str(_program()), str(ROUNDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


BENCHES = (Bench("net_tx_64", "ns", ours, _twin, goal=1.10),)
