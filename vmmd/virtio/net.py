"""virtio-net (virtio 1.2, 5.1): the control plane of a network interface.

The data path is ``net.c`` and ``net_rx.c``: frames go straight between guest
memory and the tap. This file configures it, activates it, and reads off its
counters. It owns no fd: the tap is lent by ``vmmd.loop.net``, which also decides
when to drain.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass
from vmmd.limiter import LimiterState
from vmmd.state.record import (
    SEMANTIC,
    Loss,
    Refusal,
    downgrade,
    record,
    upgrade,
    with_fields,
    without,
)
from vmmd.virtio.aggregate import Aggregate, aggregate
from vmmd.virtio.net_features import (
    LARGE_FRAMES,
    OFFERED,
    Feature,
    Offload,
    offloads,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd._native import CData
    from vmmd.state.record import Fields, Notes
    from vmmd.virtio.device import Activation

QUEUE_SIZE = 256
MAC_BYTES = 6
IPV4_BYTES = 4
HEADER_BYTES: int = lib.NET_HEADER
MAX_FRAME_BYTES: int = lib.NET_MAX_FRAME
UNLIMITED = (1 << 64) - 1

# A drain's budget, as a disk's: see virtio/block.py.
DRAIN_FRAMES = 4096
DRAIN_BYTES = 64 << 20
DRAIN_NS = 1_000_000
SPIN_NS = 30_000

# An Ethernet frame with a VLAN tag over the usual MTU, and the header.
PLAIN_MTU = 1500
AROUND_MTU = HEADER_BYTES + 14 + 4


class Stop(enum.IntEnum):
    """Why a drain ended."""

    EMPTY = lib.NET_EMPTY
    BUDGET = lib.NET_BUDGET
    THROTTLED = lib.NET_THROTTLED
    WOULD_BLOCK = lib.NET_WOULD_BLOCK
    NO_BUFFERS = lib.NET_NO_BUFFERS
    DETOUR = lib.NET_DETOUR
    TAP_ERROR = lib.NET_TAP_ERROR
    BROKEN = lib.NET_BROKEN


_STOPS = tuple(Stop)


@dataclass(frozen=True, slots=True)
class NetStatistics:
    """Counters since the device was made, under Firecracker's names.

    The last three are ours: frames taken for the metadata service, and how often
    polling the transmit ring was tried and paid.
    """

    activate_fails: int
    cfg_fails: int
    no_rx_avail_buffer: int
    no_tx_avail_buffer: int
    event_fails: int
    rx_queue_event_count: int
    rx_event_rate_limiter_count: int
    rx_rate_limiter_throttled: int
    rx_tap_event_count: int
    rx_bytes_count: int
    rx_packets_count: int
    rx_fails: int
    rx_count: int
    tap_read_fails: int
    tap_write_fails: int
    tap_write_agg: Aggregate
    tx_bytes_count: int
    tx_malformed_frames: int
    tx_fails: int
    tx_count: int
    tx_packets_count: int
    tx_queue_event_count: int
    tx_rate_limiter_event_count: int
    tx_rate_limiter_throttled: int
    tx_spoofed_mac_count: int
    tx_remaining_reqs_count: int
    detour_count: int
    spin_count: int
    spin_hit_count: int


class NetDevice:
    """One interface: the device contract, and the verbs of its pump.

    The pump counts its events in the public counters. ``fault`` is the text of
    the rule that a ring broke, None while both are sound. ``on_active`` is called
    when the driver is ready and when it has reset the device: the tap's
    :meth:`offloads` are others then. What it raises fails the activation.
    ``rx_limiter`` and ``tx_limiter`` are what the record says of the limiters; the
    pump, which has a clock, keeps them true whenever the device may be saved.
    """

    DEVICE_ID = 1
    QUEUE_SIZES = (QUEUE_SIZE, QUEUE_SIZE)

    def __init__(self, record: NetState, tap_fd: int) -> None:
        self.iface_id = record.iface_id
        self.rx_limiter, self.tx_limiter = record.rx_limiter, record.tx_limiter
        self.cfg_fails = 0
        self.event_fails = 0
        self.rx_queue_event_count = 0
        self.tx_queue_event_count = 0
        self.rx_tap_event_count = 0
        self.rx_event_rate_limiter_count = 0
        self.tx_rate_limiter_event_count = 0
        self.fault: str | None = None
        self.on_active: Callable[[], None] = lambda: None
        self._record = record
        self._activation: Activation | None = None
        self._native = ffi.new("struct net *")
        self._native.tap_fd = tap_fd
        self._native.max_requests = DRAIN_FRAMES
        self._native.max_bytes = DRAIN_BYTES
        self._native.max_ns = DRAIN_NS
        self._native.spin_ns = SPIN_NS
        if record.guest_mac is not None:
            self._native.check_mac = True
            ffi.memmove(self._native.mac, record.guest_mac, MAC_BYTES)
        self.limit_rx(UNLIMITED, UNLIMITED)
        self.limit_tx(UNLIMITED, UNLIMITED)
        lib.net_reset(self._native)

    @classmethod
    def restore(cls, record: NetState, tap_fd: int) -> NetDevice:
        """The device that ``record`` describes, over a tap; not active."""
        return cls(record, tap_fd)

    @property
    def native(self) -> CData:
        """The ``struct net *``: the tests' and the benchmark's way in."""
        return self._native

    @property
    def features(self) -> int:
        """Feature bits offered: MAC and MTU only where they were given."""
        offered = int(OFFERED)
        if self._record.guest_mac is not None:
            offered |= Feature.MAC
        if self._record.mtu is not None:
            offered |= Feature.MTU
        return offered

    def config_space(self) -> bytes:
        """MAC, status, queue pairs, MTU; zero where the feature is not offered."""
        mac = self._record.guest_mac or bytes(MAC_BYTES)
        return mac + bytes(4) + (self._record.mtu or 0).to_bytes(2, "little")

    def activate(self, activation: Activation) -> None:
        """Serve the rings from the next drain on."""
        receive, transmit = activation.rings
        self._activation = activation
        native = self._native
        native.rx, native.tx = receive.native, transmit.native
        native.irq = activation.irq.native
        native.mergeable = bool(activation.features & Feature.MRG_RXBUF)
        native.rx_room = self._room(activation.features)
        self.fault = None
        self.on_active()

    def reset(self) -> None:
        """Forget the rings."""
        lib.net_reset(self._native)
        self._activation = None
        self.fault = None
        self.on_active()

    def offloads(self) -> Offload:
        """What to leave to the guest, for TUNSETOFFLOAD; nothing when not active."""
        return offloads(self._activation.features if self._activation else 0)

    def drain_tx(self) -> Stop:
        """Send what the driver has made available; says why it stopped.

        At most a millisecond; releases the GIL. EMPTY: wait for the queue's kick.
        WOULD_BLOCK: until the tap can be written. DETOUR: :meth:`take_detoured`,
        then call again. TAP_ERROR, once until a write succeeds: call again; what
        the driver sends is dropped and counted.
        """
        stop: int = lib.net_drain_tx(self._native)
        return _STOPS[stop]

    def drain_rx(self) -> Stop:
        """Receive what the tap holds; says why it stopped.

        WOULD_BLOCK: wait until the tap can be read. NO_BUFFERS: leave the tap
        alone until the queue's kick. TAP_ERROR: nothing will come from this tap.
        EMPTY: not active.
        """
        stop: int = lib.net_drain_rx(self._native)
        return _STOPS[stop]

    @property
    def tap_errno(self) -> int:
        """After TAP_ERROR: what the kernel said."""
        error: int = self._native.tap_errno
        return error

    @property
    def tap_lost(self) -> bool:
        """Whether the last write failed because the tap is down or gone."""
        return bool(self._native.tap_lost)

    def limit_tx(self, ops_allowed: int, bytes_allowed: int) -> None:
        """What may be sent until the next call; UNLIMITED is no limit.

        The frame that reaches a limit is the last. Detoured ones are free.
        """
        limit = self._native.tx_limit
        limit.ops_allowed, limit.bytes_allowed = ops_allowed, bytes_allowed

    def limit_rx(self, ops_allowed: int, bytes_allowed: int) -> None:
        """What may be received until the next call, likewise."""
        limit = self._native.rx_limit
        limit.ops_allowed, limit.bytes_allowed = ops_allowed, bytes_allowed

    def take_used_tx(self) -> tuple[int, int]:
        """Frames and bytes sent since the last call; the next limit starts at 0."""
        return _take_used(self._native.tx_limit)

    def take_used_rx(self) -> tuple[int, int]:
        """Frames and bytes received since the last call, likewise."""
        return _take_used(self._native.rx_limit)

    def detour(self, ipv4: bytes | None) -> None:
        """Stop at frames for this address, ARP and IPv4, from now on; None: none."""
        self._record = replace(self._record, mmds_ipv4=ipv4)
        self._native.detour = ipv4 is not None
        if ipv4 is not None:
            ffi.memmove(self._native.detour_ip, ipv4, 4)

    def take_detoured(self) -> bytes:
        """After DETOUR: the Ethernet frame, whose chain is answered.

        Empty if the driver, which may write at any time, has made it none.
        """
        frame = ffi.new("uint8_t[]", MAX_FRAME_BYTES)
        length = lib.net_take_detoured(self._native, frame, MAX_FRAME_BYTES)
        return bytes(ffi.buffer(frame, length))

    def deliver(self, frame: bytes) -> bool:
        """Give the driver an Ethernet frame that did not come from the tap.

        False: not now; the next buffers are kicked. A frame that the driver's
        buffers cannot hold is dropped and counted.
        """
        return bool(lib.net_deliver(self._native, frame, len(frame)))

    def mark_fault(self) -> None:
        """After BROKEN: keep the rule that a ring broke, and count it."""
        self.event_fails += 1
        for ring in self._activation.rings if self._activation else ():
            if ring.broken:
                self.fault = ring.fault

    def save(self) -> NetState:
        """The record. Between two drains nothing is in flight."""
        return replace(
            self._record, rx_limiter=self.rx_limiter, tx_limiter=self.tx_limiter
        )

    def statistics(self) -> NetStatistics:
        """The counters, read off."""
        counters = self._native.counters
        return NetStatistics(
            activate_fails=0,
            cfg_fails=self.cfg_fails,
            no_rx_avail_buffer=counters.rx_no_buffers,
            no_tx_avail_buffer=counters.tx_no_avail,
            event_fails=self.event_fails,
            rx_queue_event_count=self.rx_queue_event_count,
            rx_event_rate_limiter_count=self.rx_event_rate_limiter_count,
            rx_rate_limiter_throttled=counters.rx_throttled,
            rx_tap_event_count=self.rx_tap_event_count,
            rx_bytes_count=counters.rx_bytes,
            rx_packets_count=counters.rx_frames,
            rx_fails=counters.rx_fails,
            rx_count=counters.rx_frames,
            tap_read_fails=counters.tap_read_fails,
            tap_write_fails=counters.tap_write_fails,
            tap_write_agg=aggregate(counters.tap_write),
            tx_bytes_count=counters.tx_bytes,
            tx_malformed_frames=counters.tx_malformed,
            tx_fails=0,
            tx_count=counters.tx_frames,
            tx_packets_count=counters.tx_frames,
            tx_queue_event_count=self.tx_queue_event_count,
            tx_rate_limiter_event_count=self.tx_rate_limiter_event_count,
            tx_rate_limiter_throttled=counters.tx_throttled,
            tx_spoofed_mac_count=counters.tx_spoofed,
            tx_remaining_reqs_count=counters.tx_remaining,
            detour_count=counters.detoured,
            spin_count=counters.spins,
            spin_hit_count=counters.spin_hits,
        )

    def _room(self, features: int) -> int:
        if features & LARGE_FRAMES:
            return MAX_FRAME_BYTES
        return max(PLAIN_MTU, self._record.mtu or 0) + AROUND_MTU


def _take_used(limit: CData) -> tuple[int, int]:
    used: tuple[int, int] = limit.ops_used, limit.bytes_used
    limit.ops_used = limit.bytes_used = 0
    return used


@record("net", 3)
class NetState:
    """An interface as it was configured, and what its limiters have left.

    Its rings are in the transport's record.

    ``guest_mac`` is six bytes, ``mmds_ipv4`` the four of the metadata service, if
    frames for it are detoured.
    """

    iface_id: str
    host_dev_name: str
    guest_mac: bytes | None = None
    mtu: int | None = None
    mmds_ipv4: bytes | None = None
    rx_limiter: LimiterState | None = None
    tx_limiter: LimiterState | None = None

    def __post_init__(self) -> None:
        """SnapshotError: a field that is out of range."""
        if self.guest_mac is not None and len(self.guest_mac) != MAC_BYTES:
            raise SnapshotError("net: guest_mac is not six bytes")
        if self.mmds_ipv4 is not None and len(self.mmds_ipv4) != IPV4_BYTES:
            raise SnapshotError("net: mmds_ipv4 is not four bytes")
        if self.mtu is not None and not 68 <= self.mtu <= 0xFFFF:
            raise SnapshotError(f"net: mtu {self.mtu} is out of range")


@downgrade(NetState, 3)
def _without_mtu(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    older = without(fields, "mtu")
    if fields["mtu"] is None:
        return older, ()
    text = "Target version does not support persisting the MTU of an interface."
    return older, (Refusal(("mtu",), text, SEMANTIC),)


@upgrade(NetState, 2)
def _with_mtu(fields: Fields) -> tuple[Fields, Notes]:
    return with_fields(fields, {"mtu": None}), ()


@downgrade(NetState, 2)
def _with_any_mac(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    """Version 1 always had an address; zeros stood for none."""
    text = "Saving to older snapshot version, optional MAC address will not be saved."
    mac = fields["guest_mac"] or bytes(MAC_BYTES)
    return {**fields, "guest_mac": mac}, (Loss(("guest_mac",), text),)


@upgrade(NetState, 1)
def _with_optional_mac(fields: Fields) -> tuple[Fields, Notes]:
    return fields, ("Optional MAC address will be set to older version.",)
