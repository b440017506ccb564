"""Rings that no driver would write: no escape, and every chain answered once."""

from __future__ import annotations

import os
import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.driver import Buffer, Driver, RingLayout
from vmmd.bus import RegisterPage
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.block import Backing, BlockDevice, BlockState, Stop
from vmmd.virtio.device import VERSION_1, Activation, IrqLine
from vmmd.virtio.ring import Ring

GUARD, SIZE, GPA = 4096, 0x8000, 0x10000
LAYOUT = RingLayout.at(GPA, 16)
SECTORS = 16

# Anywhere: in the data, in the rings themselves, across either end, far away.
ADDRESSES = st.one_of(
    st.integers(GPA, GPA + SIZE),
    st.integers(LAYOUT.desc, LAYOUT.end),
    st.integers(GPA - 600, GPA + 600),
    st.integers(GPA + SIZE - 600, GPA + SIZE + 600),
    st.sampled_from([0, (1 << 64) - 1, 1 << 63]),
)
LENGTHS = st.one_of(
    st.sampled_from([16, 1, 512, 513, 1024, 4097]),
    st.integers(0, 600),
    st.sampled_from([1 << 31, (1 << 32) - 1]),
)
DESCRIPTORS = st.tuples(
    ADDRESSES,
    LENGTHS,
    st.sampled_from([0, 1, 1, 1, 2, 2, 3, 3, 4, 0xFFFF]),
    st.one_of(st.integers(0, 16), st.integers(0, 0xFFFF)),
)
HEADERS = st.tuples(
    st.sampled_from([0, 1, 1, 4, 8, 9]),
    st.one_of(st.integers(0, SECTORS), st.integers(0, (1 << 64) - 1)),
)


class Cage:
    """Guest memory between two guards, and a device over it."""

    def __init__(self, *, workers: bool) -> None:
        self.all = bytearray(b"\xa5") * (GUARD + SIZE + GUARD)
        inside = memoryview(self.all)[GUARD : GUARD + SIZE]
        self.memory = GuestMemory([Region(GPA, inside)])
        self.memory.write(GPA, bytes(SIZE))
        self.fd = os.memfd_create("disk")
        os.ftruncate(self.fd, SECTORS * 512)
        record = BlockState(drive_id="d", path_on_host="", cache_type="Writeback")
        backing = Backing(self.fd, SECTORS * 512, b"id", nowait=workers)
        self.device = BlockDevice(record, backing)
        self.device.native.slow_until_ns = (1 << 64) - 1 if workers else 0
        self.ring = Ring(self.memory)
        at = LAYOUT
        self.ring.configure(at.size, at.desc, at.avail, at.used, event_idx=False)
        irq = IrqLine(RegisterPage())
        self.device.activate(Activation(self.memory, (self.ring,), VERSION_1, irq))

    def run(self) -> Stop:
        """Until there is nothing more to do."""
        for _ in range(100):
            stop = self.device.drain()
            while (slot := self.device.take()) is not None:
                self.device.run(slot)
            if not self.device.in_flight and stop in (Stop.EMPTY, Stop.BROKEN):
                return stop
        raise AssertionError("never came to rest")

    def close(self) -> None:
        os.close(self.fd)


@given(
    st.lists(DESCRIPTORS, min_size=16, max_size=16),
    st.lists(HEADERS, max_size=8),
    st.lists(st.one_of(st.integers(0, 15), st.integers(0, 0xFFFF)), max_size=17),
    st.booleans(),
)
def test_no_escape(
    table: list[tuple[int, int, int, int]],
    headers: list[tuple[int, int]],
    heads: list[int],
    workers: bool,
) -> None:
    cage = Cage(workers=workers)
    for i, (kind, sector) in enumerate(headers):
        at = GPA + 0x1000 + 512 * i
        cage.memory.write(at, struct.pack("<IIQ", kind, 0, sector))
    driver = Driver(cage.memory, LAYOUT)
    for i, (address, length, flags, following) in enumerate(table):
        driver.poke_desc(i, Buffer(address, length), flags, following)
    for head in heads:
        driver.offer(head)
    stop = cage.run()
    native = cage.ring.native
    assert cage.all[:GUARD] == cage.all[-GUARD:] == b"\xa5" * GUARD
    assert native.next_used == native.next_avail
    assert cage.ring.in_flight == ()
    assert (stop is Stop.BROKEN) == cage.ring.broken == (cage.ring.fault != "")
    assert os.fstat(cage.fd).st_size == SECTORS * 512
    cage.close()


@given(st.lists(st.sampled_from([0, 1, 4, 8, 9]), max_size=5), st.booleans())
def test_a_buffer_over_the_rings_harms_the_guest_alone(
    kinds: list[int], workers: bool
) -> None:
    """Reads into the descriptor table, the avail ring and the used ring."""
    cage = Cage(workers=workers)
    driver = Driver(cage.memory, LAYOUT)
    for i, kind in enumerate(kinds):
        at = GPA + 0x1000 + 512 * i
        cage.memory.write(at, struct.pack("<IIQ", kind, 0, i))
        driver.add((Buffer(at, 16), Buffer(GPA, 512, kind == 0), Buffer(at, 1, True)))
    cage.run()
    assert cage.all[:GUARD] == cage.all[-GUARD:] == b"\xa5" * GUARD
    cage.close()
