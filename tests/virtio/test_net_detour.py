"""Frames that never see the tap: those for a service of the monitor, and its own."""

from __future__ import annotations

import pytest

from tests.helpers.driver import Buffer
from tests.helpers.net_chains import AT
from tests.helpers.net_model import (
    HEADER,
    MAC,
    NetRig,
    frame,
)
from vmmd.virtio.net import Stop

IPV4 = bytes((169, 254, 169, 254))


def arp(target: bytes) -> bytes:
    """An ARP request for ``target``."""
    head = bytes.fromhex("0001080006040001")
    return frame(head + MAC + bytes(4) + bytes(6) + target, kind=0x0806)


def ipv4(target: bytes) -> bytes:
    """The first bytes of an IPv4 packet to ``target``."""
    return frame(b"\x45" + bytes(15) + target + bytes(20))


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
