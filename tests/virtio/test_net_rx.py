"""net_rx.c against the model, over honest frames, chains and taps."""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.driver import Buffer
from tests.helpers.net_chains import AT, LENGTHS, cut, separate
from tests.helpers.net_model import (
    HEADER,
    MAX_FRAME,
    MRG,
    QUEUE,
    Chain,
    NetModel,
    NetRig,
    frame,
)
from vmmd.virtio.net import NetState, Stop
from vmmd.virtio.net_features import Feature

if TYPE_CHECKING:
    from tests.virtio.conftest import Make

BIG = NetRig.DATA + 2 * MAX_FRAME


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
