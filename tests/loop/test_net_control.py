"""Interfaces: limits, offloads, how one is made."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.helpers.net_model import frame
from tests.helpers.network import delete
from tests.helpers.nic import (
    TAP,
    SocketTap,
    guest_on,
    needs_root,
    pumped,
    tap_host,
)
from vmmd.config import (
    NetworkInterfaceConfig,
    RateLimiterConfig,
    TokenBucketConfig,
)
from vmmd.errors import HostError
from vmmd.limiter import cold
from vmmd.loop.net import cold_state, nic
from vmmd.resources.nets import Net
from vmmd.virtio.net import NetState
from vmmd.virtio.net_features import Feature, Offload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.nic import Host

SIOCETHTOOL, ETHTOOL_GTSO = 0x8946, 0x1E


@pytest.fixture
def host() -> Iterator[Host]:
    """The tap and the host's side of it."""
    with tap_host() as made:
        yield made


def limiter(size: int, refill_time: int) -> RateLimiterConfig:
    return RateLimiterConfig(None, TokenBucketConfig(size, None, refill_time))


OFF = limiter(0, 0)


@pytest.mark.parametrize("way", ["rx", "tx"])
async def test_a_limiter_lets_so_many_pass_and_then_waits(
    way: str, autojump_clock: trio.testing.MockClock
) -> None:
    limit = cold(limiter(4, 1000))
    limited = {
        "rx": NetState(iface_id="eth0", host_dev_name="pair", rx_limiter=limit),
        "tx": NetState(iface_id="eth0", host_dev_name="pair", tx_limiter=limit),
    }[way]
    pair = SocketTap()
    begun = autojump_clock.current_time()
    async with pumped(pair, limited) as guest:
        guest.offer(12)
        for _ in range(12):
            pair.far.send(frame(b"r" * 50))
        guest.send(12)
        counts = (guest.rig.rx, guest.rig.tx)
        first, other = counts if way == "rx" else counts[::-1]
        with trio.fail_after(60):
            while other.used_index() < 12:
                await guest.interrupt.wait()
        assert first.used_index() == 4
        assert autojump_clock.current_time() == begun
        with trio.fail_after(60):
            while first.used_index() < 12:
                await guest.interrupt.wait()
        assert autojump_clock.current_time() - begun == pytest.approx(2, abs=0.3)
        statistics = guest.nic.device.statistics()
        events = (
            statistics.rx_event_rate_limiter_count,
            statistics.tx_rate_limiter_event_count,
        )
        assert events[way == "tx"] > 0
        assert events[way == "rx"] == 0


async def test_a_patch_ends_a_wait_and_is_saved(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pair = SocketTap()
    begun = autojump_clock.current_time()
    async with pumped(pair) as guest:
        guest.nic.limit(None, limiter(2, 3_600_000))
        guest.send(8)
        await guest.until(sent=2)
        await guest.nic.quiesce()
        saved = guest.nic.device.save().tx_limiter
        assert saved is not None
        assert saved.ops is not None
        assert (saved.ops.size, saved.ops.budget) == (2, 0)
        guest.nic.resume()
        guest.nic.limit(OFF, OFF)
        await guest.until(sent=8)
        assert autojump_clock.current_time() == begun
        assert guest.nic.device.save().tx_limiter is None


async def test_what_came_before_a_limiter_is_not_charged_to_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pair = SocketTap()
    async with pumped(pair) as guest:
        guest.send(20)
        await guest.until(sent=20)
        begun = autojump_clock.current_time()
        guest.nic.limit(None, limiter(5, 3_600_000))
        guest.send(5)
        await guest.until(sent=25)
        assert autojump_clock.current_time() == begun


async def test_the_tap_is_told_what_the_driver_takes() -> None:
    pair = SocketTap()
    guest = guest_on(pair)
    assert pair.offloads == [0]
    guest.rig.activate(int(Feature.GUEST_CSUM | Feature.GUEST_TSO4))
    guest.nic.device.reset()
    assert pair.offloads == [0, Offload.CSUM | Offload.TSO4, 0]
    await guest.close()


@needs_root
async def test_the_kernel_is_told_what_the_driver_takes(host: Host) -> None:
    guest = guest_on(host.tap.duplicate())
    for features, segmented in ((0, 0), (Feature.GUEST_CSUM | Feature.GUEST_TSO4, 1)):
        guest.rig.activate(int(features))
        value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_GTSO, 0))
        request = struct.pack("16sP16x", TAP.encode(), ctypes.addressof(value))
        fcntl.ioctl(host.packets, SIOCETHTOOL, request)
        assert struct.unpack_from("II", value) == (ETHTOOL_GTSO, segmented)
    await guest.close()


@needs_root
async def test_a_driver_may_come_and_go_when_the_tap_is_gone(host: Host) -> None:
    async with pumped(host.tap.duplicate()) as guest:
        delete(TAP)
        guest.nic.device.reset()
        guest.rig.activate(int(Feature.GUEST_CSUM))
        guest.send(1)
        await guest.until(sent=1)
        assert len(guest.lines) == 1


async def test_a_driver_that_is_ready_late_needs_no_kick() -> None:
    """What it kicked for before it was ready is not lost."""
    guest = guest_on(SocketTap())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest.nic.pump, guest, guest.kick)
        await trio.testing.wait_all_tasks_blocked()
        guest.rig.activate()
        guest.rig.send(frame(b"x" * 50))
        await guest.until(sent=1)
        nursery.cancel_scope.cancel()
    await guest.close()


async def test_a_tap_that_refuses_offloads_fails_the_activation() -> None:
    class Refusing(SocketTap):
        exists = True

        def set_offloads(self, offloads: int) -> None:
            if offloads:
                raise HostError("TUNSETOFFLOAD")

    guest = guest_on(Refusing())
    with pytest.raises(HostError):
        guest.rig.activate(int(Feature.GUEST_CSUM))
    await guest.close()


async def test_a_ring_that_breaks_the_rules_is_told_of_once() -> None:
    async with pumped(SocketTap()) as guest:
        guest.rig.tx.poke_avail_idx(500)
        for _ in range(3):
            guest.kick.signal()
            await trio.testing.wait_all_tasks_blocked()
        assert guest.broken == 1
        (line,) = guest.lines
        assert line.startswith("net eth0: ")
        assert line.endswith("; needs a reset")


def config(mac: str | None = None) -> NetworkInterfaceConfig:
    return NetworkInterfaceConfig("eth0", TAP, mac, 1400, None, limiter(5, 10))


def test_the_state_of_an_interface_at_a_cold_boot() -> None:
    assert cold_state(config("06:00:ac:10:00:02")) == NetState(
        iface_id="eth0",
        host_dev_name=TAP,
        guest_mac=bytes.fromhex("0600ac100002"),
        mtu=1400,
        tx_limiter=cold(limiter(5, 10)),
    )
    assert cold_state(config()).guest_mac is None


@needs_root
async def test_a_pump_has_a_descriptor_of_its_own(host: Host) -> None:
    lines: list[str] = []
    held = host.tap.duplicate()
    saved = NetState(iface_id="eth0", host_dev_name="before", mtu=1300)
    made = nic(Net(config(), held), saved, lines.append)
    held.close()
    assert made.tap.exists
    assert made.device.save() == NetState(iface_id="eth0", host_dev_name=TAP, mtu=1300)
    await made.aclose()
    gone = host.tap.duplicate()
    delete(TAP)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="tap t0: it was deleted"):
        nic(Net(config(), gone), None, lines.append)
    assert len(os.listdir("/proc/self/fd")) == before
    gone.close()


def test_resources_hold_taps_that_we_opened() -> None:
    class Other:
        name = "x"
        exists = True

        def close(self) -> None:
            """Nothing."""

    with pytest.raises(TypeError):
        nic(Net(config(), Other()), None, print)
