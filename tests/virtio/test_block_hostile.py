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

HEADER_AT = GPA + 0x1000
# Mostly in memory: the data, the rings, the headers, up to the very end.
INSIDE = st.one_of(
    st.integers(GPA + 0x2000, GPA + SIZE - 1024),
    st.integers(LAYOUT.desc, LAYOUT.end),
    st.integers(HEADER_AT - 512, HEADER_AT + 512),
    st.just(GPA + SIZE - 512),
)
OUTSIDE = st.one_of(
    st.integers(GPA - 600, GPA - 1),
    st.integers(GPA + SIZE - 511, GPA + SIZE + 600),
    st.sampled_from([0, (1 << 64) - 1, 1 << 63]),
)
LENGTHS = st.sampled_from([0, 512, 512, 512, 1024, 20, 513])
DATA = st.lists(st.tuples(INSIDE, LENGTHS), max_size=2)
REQUESTS = st.tuples(
    st.sampled_from([0, 0, 1, 1, 4, 8, 9]), st.integers(0, SECTORS), DATA
)
# Descriptors that are overwritten behind the driver's back.
POKES = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.one_of(INSIDE, OUTSIDE),
        st.sampled_from([16, 1, 512, 4097, 1 << 31, (1 << 32) - 1]),
        st.sampled_from([0, 1, 1, 2, 3, 4, 0xFFFF]),
        st.one_of(st.integers(0, 16), st.integers(0, 0xFFFF)),
    ),
    max_size=2,
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
    st.lists(REQUESTS, min_size=1, max_size=4),
    POKES,
    st.lists(st.integers(0, 17), max_size=1),
    st.booleans(),
)
def test_no_escape(
    requests: list[tuple[int, int, list[tuple[int, int]]]],
    pokes: list[tuple[int, int, int, int, int]],
    heads: list[int],
    workers: bool,
) -> None:
    cage = Cage(workers=workers)
    driver = Driver(cage.memory, LAYOUT)
    for i, (kind, sector, data) in enumerate(requests):
        at = HEADER_AT + 64 * i
        cage.memory.write(at, struct.pack("<IIQ", kind, 0, sector))
        buffers = [Buffer(gpa, length, kind != 1) for gpa, length in data]
        driver.add((Buffer(at, 16), *buffers, Buffer(at + 16, 1, writable=True)))
    for index, gpa, length, flags, following in pokes:
        driver.poke_desc(index, Buffer(gpa, length), flags, following)
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
        at = HEADER_AT + 64 * i
        cage.memory.write(at, struct.pack("<IIQ", kind, 0, i))
        driver.add((Buffer(at, 16), Buffer(GPA, 512, kind == 0), Buffer(at, 1, True)))
    cage.run()
    assert cage.all[:GUARD] == cage.all[-GUARD:] == b"\xa5" * GUARD
    cage.close()
