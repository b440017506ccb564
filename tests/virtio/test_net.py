"""net.c against the model, over honest frames, chains and taps."""

from __future__ import annotations

import errno
import itertools
import os
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.driver import Buffer
from tests.helpers.net_model import (
    HEADER,
    MAC,
    MAX_FRAME,
    MRG,
    QUEUE,
    Chain,
    NetModel,
    NetRig,
    frame,
)
from vmmd.errors import SnapshotError
from vmmd.virtio.net import UNLIMITED, NetDevice, NetState, Stop
from vmmd.virtio.net_features import Feature, Offload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy

AT = NetRig.DATA
DATA_END = 0x20000
IPV4 = bytes((169, 254, 169, 254))
BIG = NetRig.DATA + 2 * MAX_FRAME


Make = Callable[..., NetRig]


@pytest.fixture
def make() -> Iterator[Make]:
    """Rigs that are closed when the test ends."""
    with ExitStack() as stack:

        def made(size: int = 0x20000, record: NetState | None = None) -> NetRig:
            return stack.enter_context(closing(NetRig(size, record)))

        yield made


@pytest.fixture
def rig(make: Make) -> NetRig:
    return make()


@pytest.fixture
def merging(make: Make) -> NetRig:
    made = make(0x40000)
    made.activate(MRG)
    return made


def arp(target: bytes) -> bytes:
    """An ARP request for ``target``."""
    head = bytes.fromhex("0001080006040001")
    return frame(head + MAC + bytes(4) + bytes(6) + target, kind=0x0806)


def ipv4(target: bytes) -> bytes:
    """The first bytes of an IPv4 packet to ``target``."""
    return frame(b"\x45" + bytes(15) + target + bytes(20))


@st.composite
def cut(draw: st.DrawFn, total: int, *, writable: bool) -> Chain:
    """``total`` bytes of buffers anywhere in the data area, cut anywhere."""
    edges = [0, *sorted(draw(st.lists(st.integers(0, total), max_size=3))), total]
    return tuple(
        Buffer(draw(st.integers(AT, DATA_END - 1 - (b - a))), b - a, writable)
        for a, b in itertools.pairwise(edges)
    )


LENGTHS = st.one_of(st.integers(24, 30), st.integers(0, 200), st.integers(1528, 1534))


def transmitted() -> SearchStrategy[Chain]:
    """A chain to send; perhaps too short, perhaps with a writable part."""
    extra = st.one_of(st.just(()), cut(20, writable=True))
    return LENGTHS.flatmap(
        lambda n: st.tuples(cut(n, writable=False), extra).map(lambda p: p[0] + p[1])
    )


def separate(chains: list[Chain]) -> list[Chain]:
    """The same chains with buffers that do not overlap, in the data area."""
    at, made = AT, []
    for chain in chains:
        moved = []
        for buffer in chain:
            moved.append(Buffer(at, buffer.length, buffer.writable))
            at += buffer.length
        made.append(tuple(moved))
    return made


class TestTransmit:
    @given(st.lists(transmitted(), max_size=8))
    def test_model(self, chains: list[Chain]) -> None:
        rig = NetRig()
        rig.memory.write(AT, bytes(i * 11 & 0xFF for i in range(DATA_END - AT)))
        model = NetModel(bytearray(rig.image))
        heads = [rig.tx.add(chain) for chain in chains]
        expected = [model.transmit(chain) for chain in chains]
        assert rig.device.drain_tx() is Stop.EMPTY
        assert rig.tap.take() == [whole for whole in expected if whole is not None]
        assert rig.tx.reap() == [(head, 0) for head in heads]
        seen = rig.device.statistics()
        assert seen.tx_malformed_frames == expected.count(None)
        assert seen.tx_packets_count == len(expected) - expected.count(None)
        assert rig.image[AT:] == bytes(model.memory[AT:])
        rig.close()

    def test_largest(self, make: Make) -> None:
        rig = make(0x40000)
        whole = frame(bytes(range(256)) * 255 + bytes(MAX_FRAME - HEADER - 14 - 65280))
        assert len(whole) == MAX_FRAME
        rig.send(whole)
        rig.tx.add((Buffer(AT, MAX_FRAME + 1),))
        assert rig.device.drain_tx() is Stop.EMPTY
        assert rig.tap.take() == [whole]
        assert rig.device.statistics().tx_malformed_frames == 1
        assert rig.device.statistics().tx_bytes_count == MAX_FRAME

    def test_a_full_tap_keeps_the_frame_in_the_ring(self, rig: NetRig) -> None:
        sent = [frame(bytes([i]) * 4000) for i in range(QUEUE)]
        for i, whole in enumerate(sent):
            rig.send(whole, AT + 0x400 * i)
        # Buffers overlap: what is sent is what lies there at the end.
        lying = [rig.memory.read(AT + 0x400 * i, 4026) for i in range(QUEUE)]
        rig.tap.far.setsockopt(1, 8, 1)
        got: list[bytes] = []
        stops = set()
        while len(got) < QUEUE:
            stops.add(rig.device.drain_tx())
            used = len(rig.tx.reap())
            assert rig.rings[1].in_flight == ()
            taken = rig.tap.take()
            assert len(taken) == used
            got += taken
        assert got == lying
        assert Stop.WOULD_BLOCK in stops
        assert rig.device.statistics().tap_write_fails == 0

    def test_a_tap_that_is_gone_is_news_once(self, rig: NetRig) -> None:
        rig.device.native.tap_fd = -1
        for i in range(3):
            rig.send(frame(bytes(50)), AT + 0x100 * i)
        assert rig.device.drain_tx() is Stop.TAP_ERROR
        assert rig.device.tap_errno == errno.EBADF
        assert rig.device.drain_tx() is Stop.EMPTY
        assert len(rig.tx.reap()) == 3
        assert rig.device.statistics().tap_write_fails == 3
        rig.device.native.tap_fd = rig.tap.fd
        rig.send(frame(bytes(50)))
        assert rig.device.drain_tx() is Stop.EMPTY
        rig.device.native.tap_fd = -1
        rig.send(frame(bytes(50)))
        assert rig.device.drain_tx() is Stop.TAP_ERROR

    def test_a_frame_that_the_tap_refuses_is_dropped(self, rig: NetRig) -> None:
        rig.device.native.tap_fd = os.open("/dev/full", os.O_WRONLY)
        rig.send(frame(bytes(50)))
        assert rig.device.drain_tx() is Stop.EMPTY
        assert len(rig.tx.reap()) == 1
        assert rig.device.statistics().tap_write_fails == 1
        os.close(rig.device.native.tap_fd)

    def test_spoofed_source(self, make: Make) -> None:
        rig = make(record=NetState(iface_id="a", host_dev_name="t", guest_mac=MAC))
        rig.send(frame(bytes(50)))
        other = bytearray(frame(bytes(50)))
        other[HEADER + 11] ^= 1
        rig.send(bytes(other), AT + 0x100)
        whole = bytes(other)
        parts = [(0x200, whole[:15]), (0x280, whole[15:20]), (0x300, whole[20:])]
        for offset, part in parts:
            rig.memory.write(AT + offset, part)
        rig.tx.add(tuple(Buffer(AT + at, len(part)) for at, part in parts))
        assert rig.device.drain_tx() is Stop.EMPTY
        assert len(rig.tap.take()) == 3
        assert rig.device.statistics().tx_spoofed_mac_count == 2


class TestReceive:
    @given(
        st.lists(LENGTHS.flatmap(lambda n: cut(n, writable=True)), max_size=12),
        st.lists(st.one_of(LENGTHS, LENGTHS, st.just(4000)).map(lambda n: n or 1)),
        st.booleans(),
        st.booleans(),
    )
    def test_model(
        self, chains: list[Chain], frames: list[int], merge: bool, readable: bool
    ) -> None:
        rig = NetRig()
        rig.activate(MRG if merge else 0)
        chains = separate(chains)
        if readable:
            chains = [(Buffer(AT, 9), *chain) for chain in chains]
        contents = deque(bytes([i + 1 & 0xFF]) * n for i, n in enumerate(frames))
        model = NetModel(bytearray(rig.image), mergeable=merge)
        for whole in contents:
            rig.tap.put(whole)
        # One half of the buffers is there before, the other comes later.
        for half in (chains[::2], chains[1::2]):
            model.offered.extend((rig.rx.add(chain), chain) for chain in half)
            assert rig.device.drain_rx().name == model.receive(contents)
            assert rig.rings[0].in_flight == ()
            assert rig.rx.reap() == model.used
            model.used.clear()
        assert rig.image[AT:] == bytes(model.memory[AT:])
        assert rig.device.statistics().rx_fails == model.fails
        rig.close()

    def test_num_buffers(self, merging: NetRig) -> None:
        heads = merging.offer(20, 500)
        whole = frame(bytes(range(250)) * 5)
        merging.tap.put(whole)
        assert merging.device.drain_rx() is Stop.WOULD_BLOCK
        last = len(whole) - 1000
        assert merging.rx.reap() == [(heads[0], 500), (heads[1], 500), (heads[2], last)]
        header = whole[:10] + (3).to_bytes(2, "little")
        assert merging.memory.read(0x8000, len(whole)) == header + whole[12:]

    def test_one_buffer_is_one(self, rig: NetRig) -> None:
        (head,) = rig.offer(1, 2048)
        rig.memory.write(0x8000, b"\xee" * 2048)
        rig.tap.put(frame(b"x" * 60))
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert rig.rx.reap() == [(head, 86)]
        assert rig.memory.read(0x8000 + 10, 2) == b"\1\0"

    def test_a_full_ring_leaves_the_tap_alone(self, rig: NetRig) -> None:
        for i in range(3):
            rig.tap.put(frame(bytes([i]) * 60))
        rig.offer(2, 2048)
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert len(rig.rx.reap()) == 2
        assert rig.rx.kick_due()
        rig.offer(1, 2048)
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert rig.memory.read(0x8000 + 26, 60) == bytes([2]) * 60

    def test_too_few_merged_buffers_leave_the_tap_alone(self, make: Make) -> None:
        rig = make(0x40000)
        rig.activate(MRG | Feature.GUEST_CSUM | Feature.GUEST_TSO4, event_idx=True)
        rig.tap.put(frame(b"x" * 60))
        rig.offer(16, 4096)
        rig.rx.kick_due()
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert rig.rx.reap() == []
        assert rig.rings[0].native.next_avail == 0
        # The kick that was asked for is the one for the buffer that is missing.
        rig.offer(1, 4096, 0x30000)
        assert rig.rx.kick_due()
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert len(rig.rx.reap()) == 1

    def test_no_kick_is_asked_for_while_there_are_buffers(self, rig: NetRig) -> None:
        rig.offer(2, 2048)
        assert rig.device.drain_rx() is Stop.WOULD_BLOCK
        assert not rig.rx.kick_due()

    def test_largest_frame_over_many_buffers(self, make: Make) -> None:
        rig = make(0x40000)
        rig.activate(MRG | Feature.GUEST_CSUM | Feature.GUEST_TSO4)
        rig.offer(QUEUE, 1536)
        whole = frame(os.urandom(MAX_FRAME - HEADER - 14))
        rig.tap.put(whole)
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert [n for _, n in rig.rx.reap()] == [1536] * 42 + [MAX_FRAME - 42 * 1536]
        assert rig.memory.read(0x8000 + 12, MAX_FRAME - 12) == whole[12:]

    def test_largest_frame_in_one_buffer(self, make: Make) -> None:
        rig = make(0x40000)
        rig.activate(Feature.GUEST_CSUM | Feature.GUEST_TSO4)
        parts = tuple(Buffer(0x8000 + 4096 * i, 4096, writable=True) for i in range(17))
        head = rig.rx.add(parts)
        whole = frame(os.urandom(MAX_FRAME - HEADER - 14))
        rig.tap.put(whole)
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert rig.rx.reap() == [(head, MAX_FRAME)]
        assert rig.memory.read(0x8000 + 12, MAX_FRAME - 12) == whole[12:]

    def test_a_frame_that_does_not_fit_costs_no_buffer(self, rig: NetRig) -> None:
        (head,) = rig.offer(1, 1000)
        guard = rig.memory.read(0x8000 + 1000, 4096)
        rig.tap.put(frame(b"y" * 3000))
        rig.tap.put(frame(b"x" * 60))
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert rig.rx.reap() == [(head, 86)]
        assert rig.device.statistics().rx_fails == 1
        assert rig.memory.read(0x8000 + 1000, 4096) == guard

    def test_after_a_jumbo_frame_there_is_room_for_the_next(
        self, merging: NetRig
    ) -> None:
        merging.offer(50, 1536)
        for _ in range(2):
            merging.tap.put(frame(bytes(8000)))
        assert merging.device.drain_rx() is Stop.WOULD_BLOCK
        assert len(merging.rx.reap()) == 6
        assert merging.device.statistics().rx_fails == 1

    @pytest.mark.parametrize("features", [0, MRG])
    def test_a_frame_that_fills_a_large_buffer_is_lost_once(
        self, rig: NetRig, features: int
    ) -> None:
        rig.activate(features)
        rig.offer(40, 2000)
        for _ in range(3):
            rig.tap.put(frame(bytes(2000 - 26)))
        assert rig.device.drain_rx() is Stop.WOULD_BLOCK
        assert [written for _, written in rig.rx.reap()] == [2000, 2000]
        assert rig.device.statistics().rx_fails == 1

    @pytest.mark.parametrize("features", [0, MRG])
    def test_a_frame_that_fills_a_usual_buffer_is_not(
        self, rig: NetRig, features: int
    ) -> None:
        rig.activate(features)
        rig.offer(2, 1530)
        rig.tap.put(frame(bytes(1530 - 26)))
        rig.device.drain_rx()
        assert [written for _, written in rig.rx.reap()] == [1530]

    def test_mtu_makes_room(self, make: Make) -> None:
        record = NetState(iface_id="a", host_dev_name="t", mtu=9000)
        rig = make(record=record)
        rig.activate(MRG)
        rig.offer(8, 1536)
        rig.tap.put(frame(bytes(9000)))
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        assert len(rig.rx.reap()) == 6
        assert rig.device.statistics().rx_fails == 0

    def test_a_tap_that_is_gone(self, rig: NetRig) -> None:
        rig.offer(2, 2048)
        rig.device.native.tap_fd = -1
        assert rig.device.drain_rx() is Stop.TAP_ERROR
        assert rig.device.tap_errno == errno.EBADF
        assert rig.device.statistics().tap_read_fails == 1
        rig.device.native.tap_fd = rig.tap.fd
        rig.tap.far.close()
        assert rig.device.drain_rx() is Stop.TAP_ERROR
        assert rig.device.tap_errno == errno.EIO

    def test_written_pages_are_marked(self, merging: NetRig) -> None:
        merging.offer(20, 1000, 0x8800)
        merging.tap.put(frame(bytes(1300)))
        merging.memory.clear_dirty()
        assert merging.device.drain_rx() is Stop.WOULD_BLOCK
        (bits,) = merging.memory.dirty_bitmaps()
        pages = int.from_bytes(bits, "little")
        used = merging.layouts[0].used >> 12
        # The last byte of the frame lies at 0x8d3d, in the second buffer.
        assert pages == 1 << used | 1 << 8
        merging.tap.put(frame(bytes(1300)))
        assert merging.device.drain_rx() is Stop.WOULD_BLOCK
        (bits,) = merging.memory.dirty_bitmaps()
        assert int.from_bytes(bits, "little") == pages | 1 << 9


class TestStops:
    def fill(self, rig: NetRig, count: int) -> None:
        for i in range(count):
            rig.send(frame(bytes(74)), AT + 0x100 * i)
            rig.tap.put(frame(bytes(74)))
        rig.offer(count, 2048)

    @pytest.mark.parametrize("limit", ["max_requests", "max_bytes"])
    def test_budget(self, rig: NetRig, limit: str) -> None:
        setattr(rig.device.native, limit, 2 if limit == "max_requests" else 101)
        self.fill(rig, 5)
        assert rig.device.drain_tx() is Stop.BUDGET
        assert rig.device.drain_rx() is Stop.BUDGET
        assert len(rig.tx.reap()) == len(rig.rx.reap()) == 2
        assert not rig.tx.kick_due()
        assert rig.device.statistics().tx_remaining_reqs_count == 3

    def test_time(self, rig: NetRig) -> None:
        rig.device.native.max_ns = 0
        self.fill(rig, 2)
        assert rig.device.drain_tx() is rig.device.drain_rx() is Stop.BUDGET
        assert rig.tx.reap() == rig.rx.reap() == []

    @pytest.mark.parametrize("limit", [(2, UNLIMITED), (UNLIMITED, 101)])
    def test_limits(self, rig: NetRig, limit: tuple[int, int]) -> None:
        rig.device.limit_tx(*limit)
        rig.device.limit_rx(*limit)
        self.fill(rig, 3)
        assert rig.device.drain_tx() is rig.device.drain_rx() is Stop.THROTTLED
        assert len(rig.tx.reap()) == len(rig.rx.reap()) == 2
        assert rig.device.take_used_tx() == rig.device.take_used_rx() == (2, 200)
        assert rig.device.take_used_tx() == (0, 0)
        assert rig.device.drain_tx() is Stop.EMPTY
        assert rig.device.drain_rx() is Stop.NO_BUFFERS
        seen = rig.device.statistics()
        assert (seen.tx_rate_limiter_throttled, seen.rx_rate_limiter_throttled) == (
            1,
            1,
        )

    def test_nothing_to_send_is_not_throttled(self, rig: NetRig) -> None:
        rig.device.limit_tx(0, 0)
        assert rig.device.drain_tx() is Stop.EMPTY
        assert rig.tx.kick_due()

    def test_broken_rings(self, rig: NetRig) -> None:
        for driver, drain in ((rig.rx, "drain_rx"), (rig.tx, "drain_tx")):
            rig.activate()
            driver.poke_avail_idx(1000)
            assert getattr(rig.device, drain)() is Stop.BROKEN
            rig.device.mark_fault()
            assert rig.device.fault == "available index is more than the queue ahead"
        assert rig.device.statistics().event_fails == 2

    def test_off(self, rig: NetRig) -> None:
        self.fill(rig, 1)
        rig.device.reset()
        assert rig.device.drain_tx() is rig.device.drain_rx() is Stop.EMPTY
        assert rig.device.take_detoured() == b""
        assert not rig.device.deliver(bytes(60))
        assert rig.rx.reap() == rig.tx.reap() == []

    def test_one_interrupt_for_a_batch(self, rig: NetRig) -> None:
        self.fill(rig, 5)
        rig.device.drain_tx()
        assert rig.irq.raised == 1
        rig.device.drain_rx()
        assert rig.irq.raised == 2
        rig.device.drain_rx()
        rig.device.drain_tx()
        assert rig.irq.raised == 2

    def test_a_spin_is_learned(self, rig: NetRig) -> None:
        rig.device.native.spin_ns = 1
        rig.device.native.spin.score = 16
        for _ in range(30):
            rig.send(frame(bytes(50)))
            rig.device.drain_tx()
            rig.tx.reap()
        assert rig.device.statistics().spin_count == 4
        assert rig.device.statistics().spin_hit_count == 0

    def test_what_was_received_is_worth_a_spin(self, rig: NetRig) -> None:
        rig.device.native.spin_ns = 1
        rig.device.native.spin.score = 16
        rig.device.drain_tx()
        assert rig.device.statistics().spin_count == 0
        rig.tap.put(frame(bytes(50)))
        rig.offer(2, 2048)
        rig.device.drain_rx()
        rig.device.drain_tx()
        rig.device.drain_tx()
        assert rig.device.statistics().spin_count == 1


class TestDetour:
    @pytest.mark.parametrize("kind", [arp, ipv4])
    def test_for_the_address(self, rig: NetRig, kind: object) -> None:
        assert callable(kind)
        rig.device.detour(IPV4)
        mine, other = kind(IPV4), kind(bytes((10, 0, 0, 1)))
        for i, whole in enumerate((other, mine, other)):
            rig.send(whole, AT + 0x100 * i)
        assert rig.device.drain_tx() is Stop.DETOUR
        assert rig.tap.take() == [other]
        assert rig.device.take_detoured() == mine[HEADER:]
        assert rig.device.drain_tx() is Stop.EMPTY
        assert rig.tap.take() == [other]
        assert [written for _, written in rig.tx.reap()] == [0, 0, 0]
        assert rig.device.take_used_tx() == (2, 2 * len(other))
        assert rig.device.statistics().detour_count == 1
        assert rig.device.take_detoured() == b""

    def test_off(self, rig: NetRig) -> None:
        rig.device.detour(IPV4)
        rig.device.detour(None)
        rig.send(arp(IPV4))
        assert rig.device.drain_tx() is Stop.EMPTY
        assert rig.tap.take() == [arp(IPV4)]

    def test_other_protocols_with_the_same_bytes(self, rig: NetRig) -> None:
        rig.device.detour(IPV4)
        for i, kind in enumerate((0x86DD, 0x0801, 0x0008)):
            whole = bytearray(ipv4(IPV4))
            whole[HEADER + 12 : HEADER + 14] = kind.to_bytes(2, "big")
            rig.send(bytes(whole), AT + 0x100 * i)
        assert rig.device.drain_tx() is Stop.EMPTY
        assert len(rig.tap.take()) == 3

    def test_a_short_one(self, rig: NetRig) -> None:
        rig.device.detour(bytes(4))
        rig.send(ipv4(bytes(4))[:40])
        rig.device.drain_tx()
        assert len(rig.tap.take()) + len(rig.device.take_detoured()) > 0

    def test_cut_anywhere(self, rig: NetRig) -> None:
        rig.device.detour(IPV4)
        whole = ipv4(IPV4)
        rig.memory.write(AT, whole)
        for at in range(len(whole) + 1):
            rig.tx.add((Buffer(AT, at), Buffer(AT + at, len(whole) - at)))
            assert rig.device.drain_tx() is Stop.DETOUR
            assert rig.device.take_detoured() == whole[HEADER:]
            rig.device.drain_tx()
            rig.tx.reap()

    def test_a_frame_that_was_changed_meanwhile(self, rig: NetRig) -> None:
        rig.device.detour(IPV4)
        head = rig.send(ipv4(IPV4))
        assert rig.device.drain_tx() is Stop.DETOUR
        rig.tx.poke_desc(head, Buffer(AT, 5), 0, 0)
        assert rig.device.take_detoured() == b""
        assert rig.tx.reap() == [(head, 0)]
        assert rig.device.statistics().tx_malformed_frames == 1

    def test_deliver(self, merging: NetRig) -> None:
        rig = merging
        assert not rig.device.deliver(bytes(60))
        assert rig.rx.kick_due()
        rig.memory.write(0x8000, b"\xee" * 400)
        heads = rig.offer(4, 100)
        assert rig.device.deliver(b"z" * 150)
        assert rig.rx.reap() == [(heads[0], 100), (heads[1], 62)]
        assert rig.memory.read(0x8000, 162) == bytes(10) + b"\2\0" + b"z" * 150
        assert rig.irq.raised == 1
        assert not rig.device.deliver(b"z" * 189)
        assert rig.device.deliver(b"z" * 188)

    def test_deliver_what_no_buffer_holds(self, rig: NetRig) -> None:
        rig.offer(1, 100)
        assert rig.device.deliver(b"z" * 89)
        assert rig.rx.reap() == []
        assert rig.device.statistics().rx_fails == 1
        assert rig.device.deliver(b"z" * 88)
        assert len(rig.rx.reap()) == 1


class TestContract:
    def device(self, mac: bytes | None = None, mtu: int | None = None) -> NetDevice:
        return NetDevice.restore(
            NetState(iface_id="eth0", host_dev_name="t", guest_mac=mac, mtu=mtu), -1
        )

    def test_features(self) -> None:
        plain = self.device().features
        assert plain == (1 << 32 | 1 << 29 | 1 << 15 | 1 << 14 | 1 << 12 | 1 << 11) | (
            1 << 10 | 1 << 8 | 1 << 7 | 1 << 1 | 1 << 0
        )
        assert self.device(mac=MAC).features == plain | 1 << 5
        assert self.device(mtu=1400).features == plain | 1 << 3

    def test_config_space(self) -> None:
        assert self.device().config_space() == bytes(12)
        assert self.device(MAC, 0x1234).config_space() == MAC + bytes(4) + b"\x34\x12"

    @pytest.mark.parametrize(
        ("taken", "offloads"),
        [
            (0, 0),
            (Feature.GUEST_CSUM, Offload.CSUM),
            (Feature.GUEST_TSO4 | Feature.GUEST_UFO, 0),
            (Feature.GUEST_CSUM | Feature.GUEST_TSO4, Offload.CSUM | Offload.TSO4),
            (Feature.GUEST_CSUM | Feature.GUEST_TSO6, Offload.CSUM | Offload.TSO6),
            (Feature.GUEST_CSUM | Feature.GUEST_UFO, Offload.CSUM | Offload.UFO),
        ],
    )
    def test_offloads(self, rig: NetRig, taken: int, offloads: int) -> None:
        rig.activate(taken)
        assert rig.device.offloads() == offloads
        rig.device.reset()
        assert rig.device.offloads() == 0

    def test_save_is_what_it_was_made_of(self) -> None:
        record = NetState(
            iface_id="a", host_dev_name="t", guest_mac=MAC, mtu=68, mmds_ipv4=bytes(4)
        )
        assert NetDevice.restore(record, -1).save() == record

    @pytest.mark.parametrize(
        ("mac", "mtu"), [(b"12345", None), (None, 67), (None, 65536)]
    )
    def test_records_out_of_range(self, mac: bytes | None, mtu: int | None) -> None:
        with pytest.raises(SnapshotError):
            NetState(iface_id="a", host_dev_name="t", guest_mac=mac, mtu=mtu)
