"""The net device as every device owes it, and over rings no driver would write."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.driver import Buffer, Driver, RingLayout
from tests.helpers.net_model import HEADER, FakeTap, frame
from tests.helpers.properties import (
    Case,
    check_answered_once,
    check_no_escape,
    check_round_trip,
    check_twin,
)
from tests.strategies import chains
from vmmd.bus import RegisterPage
from vmmd.errors import GuestError
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.device import Activation, IrqLine
from vmmd.virtio.net import NetDevice, NetState, Stop
from vmmd.virtio.net_features import Feature
from vmmd.virtio.ring import Ring

MAC = bytes.fromhex("02fe00000001")
SMALLEST = frame()
GUARD, SIZE, GPA, QUEUE = 0x10000, 0x8000, 0x10000, 64
RX, TX = RingLayout.at(GPA, QUEUE), RingLayout.at(GPA + 0x800, QUEUE)
DATA = GPA + 0x1000


class Plain(NetDevice):
    """Without merged buffers: each receive buffer takes a frame of its own."""

    features = NetDevice.restore(
        NetState(iface_id="", host_dev_name=""), -1
    ).features & ~int(Feature.MRG_RXBUF)

    def __init__(self, record: NetState, tap: FakeTap) -> None:
        super().__init__(record, tap.fd)
        self.native.spin_ns = 0
        self.native.max_ns = 10**12
        self.tap = tap

    def serve(self) -> None:
        """Send all there is, and fill every receive buffer. GuestError: broken.

        Buffers without room are never filled: what makes no progress ends it.
        """
        while _check(self.drain_tx()) is not Stop.EMPTY:
            self.tap.take()
        self.tap.take()
        before = -1
        while before != self.native.counters.rx_frames:
            before = self.native.counters.rx_frames
            self.tap.put(SMALLEST)
            _check(self.drain_rx())
        self.tap.drop()


class Merging(Plain):
    """With merged buffers, of which two frames' worth has to be there."""

    features = Plain.features | int(Feature.MRG_RXBUF)

    def activate(self, activation: Activation) -> None:
        """As ever, but small rings can hold enough."""
        super().activate(activation)
        self.native.rx_room = 2 * len(SMALLEST)


def _check(stop: Stop) -> Stop:
    if stop is Stop.BROKEN:
        raise GuestError("broken")
    return stop


RECORDS = st.builds(
    NetState,
    iface_id=st.text(max_size=8),
    host_dev_name=st.text(max_size=15),
    guest_mac=st.one_of(st.none(), st.binary(min_size=6, max_size=6)),
    mtu=st.one_of(st.none(), st.integers(68, 65535)),
    mmds_ipv4=st.none() | st.binary(min_size=4, max_size=4),
)
DEFAULT = NetState(iface_id="eth0", host_dev_name="tap0", guest_mac=MAC)


def case(kind: type[Plain], stack: ExitStack) -> Case[Plain]:
    """Devices whose taps are closed with ``stack``."""

    def build(record: NetState | None) -> Plain:
        return kind(record or DEFAULT, stack.enter_context(closing(FakeTap())))

    return Case(build=build, requests=chains(), records=RECORDS)


@pytest.mark.parametrize("kind", [Plain, Merging])
@given(data=st.data())
def test_no_escape(kind: type[Plain], data: st.DataObject) -> None:
    with ExitStack() as stack:
        check_no_escape(case(kind, stack), data)


@given(st.data())
def test_every_chain_is_answered_once(data: st.DataObject) -> None:
    with ExitStack() as stack:
        check_answered_once(case(Plain, stack), data)


@pytest.mark.parametrize("kind", [Plain, Merging])
@given(data=st.data())
def test_twin(kind: type[Plain], data: st.DataObject) -> None:
    with ExitStack() as stack:
        check_twin(case(kind, stack), data)


@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    with ExitStack() as stack:
        check_round_trip(case(Plain, stack), data)


class Cage:
    """Guest memory between two guards, and a device over it."""

    def __init__(self, features: int) -> None:
        self.all = bytearray(b"\xa5") * (GUARD + SIZE + GUARD)
        inside = memoryview(self.all)[GUARD : GUARD + SIZE]
        self.memory = GuestMemory([Region(GPA, inside)])
        self.memory.write(GPA, bytes(SIZE))
        self.tap = FakeTap()
        self.device = NetDevice.restore(DEFAULT, self.tap.fd)
        self.device.native.spin_ns = 0
        self.device.native.max_ns = 10**12
        self.rings = Ring(self.memory), Ring(self.memory)
        for ring, at in zip(self.rings, (RX, TX), strict=True):
            ring.configure(at.size, at.desc, at.avail, at.used, event_idx=False)
        irq = IrqLine(RegisterPage())
        self.device.activate(Activation(self.memory, self.rings, features, irq))
        self.rx, self.tx = Driver(self.memory, RX), Driver(self.memory, TX)

    def check(self) -> None:
        """Nothing outside was written; nothing is in flight, lost or doubled."""
        assert self.all[:GUARD] == self.all[-GUARD:] == b"\xa5" * GUARD
        for ring in self.rings:
            assert ring.in_flight == ()
            assert ring.native.next_used == ring.native.next_avail
            assert ring.native.stale == 0

    def close(self) -> None:
        self.tap.close()


@pytest.fixture(scope="module", params=[0, int(Feature.MRG_RXBUF)])
def features(request: pytest.FixtureRequest) -> int:
    taken: int = request.param
    return taken | Feature.GUEST_CSUM


# Mostly in memory: the data, the rings, up to the very end; and just outside.
PLACES = st.one_of(
    st.integers(DATA, GPA + SIZE - 64),
    st.integers(DATA, GPA + SIZE - 64),
    st.integers(GPA, TX.end),
    st.sampled_from([GPA + SIZE - 26, GPA + SIZE - 1, GPA + SIZE, GPA - 26, 0]),
    st.just((1 << 64) - 26),
)
LENGTHS = st.sampled_from([0, 1, 11, 12, 26, 26, 40, 60, 1526, 0x4000, (1 << 32) - 1])
BUFFERS = st.lists(st.tuples(PLACES, LENGTHS), min_size=1, max_size=4)
POKES = st.lists(
    st.tuples(
        st.integers(0, QUEUE - 1),
        st.tuples(PLACES, LENGTHS),
        st.sampled_from([0, 1, 1, 2, 3, 4, 0xFFFF]),
        st.one_of(st.integers(0, QUEUE), st.integers(0, 0xFFFF)),
    ),
    max_size=2,
)


@given(
    offered=st.lists(BUFFERS, max_size=4),
    sent=st.lists(BUFFERS, max_size=4),
    pokes=POKES,
    heads=st.lists(st.integers(0, QUEUE + 1), max_size=2),
    frames=st.lists(st.integers(1, 3000), max_size=6),
)
def test_no_escape_from_a_cage(
    features: int,
    offered: list[list[tuple[int, int]]],
    sent: list[list[tuple[int, int]]],
    pokes: list[tuple[int, tuple[int, int], int, int]],
    heads: list[int],
    frames: list[int],
) -> None:
    with closing(Cage(features)) as cage:
        for chain in offered:
            cage.rx.add([Buffer(*place, writable=True) for place in chain])
        for chain in sent:
            cage.tx.add([Buffer(*place) for place in chain])
        for index, place, flags, following in pokes:
            for driver in (cage.rx, cage.tx):
                driver.poke_desc(index, Buffer(*place), flags, following)
        for head in heads:
            cage.rx.offer(head)
            cage.tx.offer(head)
        for length in frames:
            cage.tap.put(b"\x5a" * length)
        for _ in range(3):
            cage.device.drain_rx()
            cage.device.drain_tx()
            cage.device.deliver(b"\x5b" * 60)
            cage.device.take_detoured()
        broken = {ring.broken for ring in cage.rings}
        cage.check()
        assert (True in broken) == any(ring.fault for ring in cage.rings)


def test_merged_buffers_without_room(features: int) -> None:
    """A ring full of buffers of no length: frames are lost, nothing else is."""
    with closing(Cage(features)) as cage:
        for _ in range(QUEUE):
            cage.rx.add((Buffer(DATA, 0, writable=True),))
        for _ in range(20):
            cage.tap.put(frame(bytes(100)))
        stops = {cage.device.drain_rx() for _ in range(3)}
        assert stops <= {Stop.NO_BUFFERS, Stop.WOULD_BLOCK}
        cage.check()


def test_a_whole_ring_of_small_merged_buffers_has_to_do() -> None:
    """No more room can ever come than the ring is large."""
    with closing(Cage(int(Feature.MRG_RXBUF | Feature.GUEST_TSO4))) as cage:
        for i in range(QUEUE):
            cage.rx.add((Buffer(DATA + 200 * i, 200, writable=True),))
        cage.tap.put(frame(bytes(1000)))
        assert cage.device.drain_rx() is Stop.NO_BUFFERS
        assert cage.device.statistics().rx_packets_count == 1
        cage.check()


def test_buffers_that_all_share_a_long_chain() -> None:
    """Every head of one chain: more segments than the pool can hold at once."""
    with closing(Cage(int(Feature.MRG_RXBUF | Feature.GUEST_TSO4))) as cage:
        for i in range(QUEUE):
            last = i == QUEUE - 1
            buffer = Buffer(DATA + i, 1, writable=True)
            cage.rx.poke_desc(i, buffer, 2 if last else 3, 0 if last else i + 1)
        for head in range(QUEUE):
            cage.rx.offer(head)
        for _ in range(4):
            cage.tap.put(frame(bytes(230)))
        assert cage.device.drain_rx() is Stop.WOULD_BLOCK
        assert cage.device.statistics().rx_packets_count == 4
        assert sum(n for _, n in _used(cage.rx)) == 4 * (HEADER + 14 + 230)
        cage.check()


def _used(driver: Driver) -> list[tuple[int, int]]:
    return [driver.used_entry(i) for i in range(driver.used_index())]
