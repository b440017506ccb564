"""net.c's transmit queue against the model, its stops, the device's contract."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.driver import Buffer
from tests.helpers.net_chains import AT, DATA_END, transmitted
from tests.helpers.net_model import (
    HEADER,
    MAC,
    MAX_FRAME,
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
    from tests.virtio.conftest import Make

BIG = NetRig.DATA + 2 * MAX_FRAME


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
