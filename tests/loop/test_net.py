"""Interfaces over real taps: frames, waits, pause, a tap that is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.helpers.net_model import HEADER, frame
from tests.helpers.network import delete, set_up, wire
from tests.helpers.nic import (
    BUFFER,
    TAP,
    SocketTap,
    counted,
    ethernet,
    guest_on,
    needs_root,
    pumped,
    tap_host,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.nic import Host


@pytest.fixture
def host() -> Iterator[Host]:
    """The tap and the host's side of it."""
    with tap_host() as made:
        yield made


@needs_root
async def test_frames_go_both_ways(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.send(3)
        await guest.until(sent=3)
        assert [data[14:] for data in host.got()] == [b"x" * 50] * 3
        guest.offer(4)
        host.send(*range(4))
        await guest.until(received=4)
        assert guest.received(4) == [ethernet(n)[:64] for n in range(4)]
    statistics = guest.nic.device.statistics()
    assert (statistics.tx_count, statistics.rx_count) == (3, 4)


@needs_root
async def test_what_waits_at_the_start_needs_no_kick(host: Host) -> None:
    guest = guest_on(host.tap.duplicate())
    host.send(0)
    guest.rig.activate()
    guest.rig.offer(1, 2048, BUFFER)
    guest.rig.send(frame(b"y" * 50))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest.nic.pump, guest, guest.kick)
        await guest.until(sent=1, received=1)
        nursery.cancel_scope.cancel()
    await guest.close()


@needs_root
async def test_many_frames_a_wake(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(32)
        async with counted() as wakes:
            host.send(*range(32))
            guest.rig.send(frame(b"z" * 50))
            await guest.until(received=32)
        assert wakes.ran == {"_on_readable": 1}
        assert guest.nic.device.statistics().rx_tap_event_count == 1


@needs_root
async def test_a_full_guest_ring_leaves_the_tap_alone(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(2)
        host.send(*range(5))
        await guest.until(received=2)
        async with counted() as wakes:
            host.send(*range(5, 30))
            with trio.move_on_after(0.05):
                await trio.sleep_forever()
        assert wakes.ran == {}
        guest.rig.rx.reap()
        guest.rig.offer(30, 512, BUFFER)
        guest.kick.signal()
        await guest.until(received=30)
        host.send(30)  # now the tap is listened to again
        await guest.until(received=31)
    assert guest.nic.device.statistics().rx_queue_event_count >= 1


@needs_root
async def test_an_idle_interface_costs_no_wake(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(4)
        guest.send(1)
        await guest.until(sent=1)
        async with counted() as wakes:
            with trio.move_on_after(0.05):
                await trio.sleep_forever()
        assert wakes.ran == {}


async def test_a_full_tap_stops_the_transmit_queue() -> None:
    pair = SocketTap()
    async with pumped(pair) as guest:
        sent = 0
        while guest.rig.tx.used_index() == sent:  # until one is not taken
            guest.send(1, b"f" * 4000)
            sent += 1
            async with counted():
                pass
            guest.rig.tx.reap()
        assert guest.rig.tx.used_index() == sent - 1
        async with counted() as wakes:
            with trio.move_on_after(0.02):
                await trio.sleep_forever()
        assert wakes.ran == {}
        for _ in range(sent - 1):
            pair.far.recv(8192)
        await guest.until(sent=sent)
        assert len(pair.far.recv(8192)) == HEADER + 14 + 4000


@needs_root
async def test_a_pause_leaves_everything_where_it_is(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(4)
        await trio.testing.wait_all_tasks_blocked()
        await guest.nic.quiesce()
        assert not guest.nic.busy
        host.send(0)
        guest.send(2)
        await trio.testing.wait_all_tasks_blocked()
        await guest.nic.idle()
        await guest.nic.sync()
        assert guest.rig.rx.used_index() == guest.rig.tx.used_index() == 0
        async with counted() as wakes:
            host.send(1)
            with trio.move_on_after(0.02):
                await trio.sleep_forever()
        assert wakes.ran == {}
        guest.nic.resume()
        await guest.until(sent=2, received=2)


@needs_root
async def test_a_tap_that_is_down_is_told_of_once_and_comes_back(
    host: Host,
) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(4)
        set_up(TAP, up=False)
        guest.send(3)
        await guest.until(sent=3)
        guest.send(3)
        await guest.until(sent=6)
        assert guest.lines == [
            "net eth0: tap t0: Input/output error (EIO); set it up: `ip link set t0 up`"
        ]
        assert guest.nic.device.statistics().tap_write_fails == 6
        set_up(TAP)
        guest.send(1)
        await guest.until(sent=7)
        with wire(TAP) as after:
            after.send(ethernet(0))
        await guest.until(received=1)
        assert guest.lines[1:] == ["net eth0: tap t0: is back"]


@needs_root
async def test_a_tap_that_goes_down_and_then_away_is_told_of_twice(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(4)
        set_up(TAP, False)
        guest.send(3)
        await guest.until(sent=3)
        delete(TAP)
        with trio.fail_after(5):
            while len(guest.lines) < 2:
                await trio.lowlevel.checkpoint()
        down, gone = guest.lines
        assert "set it up: `ip link set t0 up`" in down
        assert "it was deleted" in gone


@needs_root
async def test_a_tap_that_is_deleted_is_told_of_once(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        guest.offer(4)
        await trio.testing.wait_all_tasks_blocked()
        delete(TAP)
        with trio.fail_after(5):
            while not guest.lines:
                await trio.lowlevel.checkpoint()
        async with counted() as wakes:
            with trio.move_on_after(0.05):
                await trio.sleep_forever()
        assert wakes.ran == {}
        guest.send(20)
        await guest.until(sent=20)
        assert guest.broken == 0
        (line,) = guest.lines
        assert line.startswith("net eth0: tap t0: File descriptor in bad state")
        assert "(EBADFD); it was deleted" in line
