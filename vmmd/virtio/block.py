"""virtio-blk (virtio 1.2, 5.2): the control plane of a disk.

The data path is ``block.c``: it takes chains, moves the bytes between guest
memory and the file, and answers. This file configures it, activates it, and
reads off its counters. It owns no fd: ``Backing.fd`` is lent by
``vmmd.loop.disk``, which also decides when to drain.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.frozen import dataclass
from vmmd.limiter import UNLIMITED, LimiterState
from vmmd.state.record import (
    Loss,
    downgrade,
    record,
    upgrade,
    with_fields,
    without,
)
from vmmd.virtio.aggregate import Aggregate, aggregate
from vmmd.virtio.device import RING_EVENT_IDX, VERSION_1

if TYPE_CHECKING:
    from vmmd._native import CData
    from vmmd.state.record import Fields, Notes
    from vmmd.virtio.device import Activation

SECTOR_SIZE = 512
ID_BYTES = 20
QUEUE_SIZE = 256

VIRTIO_BLK_F_RO = 1 << 5
VIRTIO_BLK_F_FLUSH = 1 << 9

# One drain: a millisecond costs 2.4 % of the IOPS and keeps the API's p99 near
# 11 ms while a guest floods; the other two bound what a cheap request can hide.
DRAIN_REQUESTS = 4096
DRAIN_BYTES = 64 << 20
DRAIN_NS = 1_000_000
# Longer than most guests think between two requests, and what a wake costs.
SPIN_NS = 30_000
# Beyond the next tick of any kernel above 250 Hz; see doze() in block.c.
DOZE_NS = 5_000_000


class CacheType(enum.Enum):
    """``cache_type`` of a drive: whether the guest's flushes reach the disk."""

    UNSAFE = "Unsafe"
    WRITEBACK = "Writeback"


class Stop(enum.IntEnum):
    """Why a drain ended."""

    EMPTY = lib.BLOCK_EMPTY
    BUDGET = lib.BLOCK_BUDGET
    THROTTLED = lib.BLOCK_THROTTLED
    WORKER = lib.BLOCK_WORKER
    BROKEN = lib.BLOCK_BROKEN


_STOPS = tuple(Stop)


@dataclass(frozen=True, slots=True)
class Backing:
    """What a device has to know of its file.

    ``fd`` is lent; ``size`` is in bytes; ``device_id`` is what GET_ID answers
    (cut or padded to 20 bytes); ``nowait`` says that the file knows RWF_NOWAIT.
    """

    fd: int
    size: int
    device_id: bytes
    nowait: bool = False


@dataclass(frozen=True, slots=True)
class BlockStatistics:
    """Counters since the device was made, under Firecracker's names.

    The last five are ours: requests that a worker carried out, and how often
    polling the ring, or sleeping on the kick in the drain, was tried and paid.
    """

    activate_fails: int
    cfg_fails: int
    no_avail_buffer: int
    event_fails: int
    execute_fails: int
    invalid_reqs_count: int
    flush_count: int
    queue_event_count: int
    rate_limiter_event_count: int
    update_count: int
    update_fails: int
    read_bytes: int
    write_bytes: int
    read_count: int
    write_count: int
    rate_limiter_throttled_events: int
    io_engine_throttled_events: int
    remaining_reqs_count: int
    read_agg: Aggregate
    write_agg: Aggregate
    worker_count: int
    spin_count: int
    spin_hit_count: int
    doze_count: int
    doze_hit_count: int


class BlockDevice:
    """One disk: the device contract, and the verbs of its pump.

    All calls but :meth:`run` come from the loop. ``fault`` is the text of the
    rule that the ring broke, None while it is sound. ``limiter`` is what the
    record says of the rate limiter; the pump, which has a clock, works it and
    keeps this true whenever the device may be saved.
    """

    DEVICE_ID = 2
    QUEUE_SIZES = (QUEUE_SIZE,)

    def __init__(self, record: BlockState, backing: Backing) -> None:
        self.drive_id = record.drive_id
        self.limiter = record.limiter
        self.queue_event_count = 0
        self.rate_limiter_event_count = 0
        self.event_fails = 0
        self.cfg_fails = 0
        self.update_count = 0
        self.update_fails = 0
        self.fault: str | None = None
        self._record = record
        self._activation: Activation | None = None
        self._native = ffi.new("struct block *")
        self._native.read_only = record.is_read_only
        self._native.writeback = record.cache_type == CacheType.WRITEBACK.value
        self._native.max_requests = DRAIN_REQUESTS
        self._native.max_bytes = DRAIN_BYTES
        self._native.max_ns = DRAIN_NS
        self.limit(UNLIMITED, UNLIMITED)
        self._native.spin_ns, self._native.doze_ns = SPIN_NS, DOZE_NS
        self._native.kick_fd = self._native.loop_fd = -1
        lib.block_reset(self._native)
        self._attach(backing)

    @classmethod
    def restore(cls, record: BlockState, backing: Backing) -> BlockDevice:
        """The device that ``record`` describes, over ``backing``; not active."""
        return cls(record, backing)

    @property
    def native(self) -> CData:
        """The ``struct block *``: the tests' and the benchmark's way in."""
        return self._native

    @property
    def features(self) -> int:
        """Feature bits offered: FLUSH only where flushes have an effect."""
        offered = VERSION_1 | RING_EVENT_IDX
        if self._native.writeback:
            offered |= VIRTIO_BLK_F_FLUSH
        if self._native.read_only:
            offered |= VIRTIO_BLK_F_RO
        return offered

    def config_space(self) -> bytes:
        """``capacity``, the number of whole sectors, as a little-endian u64."""
        capacity: int = self._native.capacity
        return capacity.to_bytes(8, "little")

    def activate(self, activation: Activation) -> None:
        """Serve the ring from the next drain on."""
        (ring,) = activation.rings
        self._activation = activation
        self._native.ring = ring.native
        self._native.irq = activation.irq.native
        self.fault = None

    def reset(self) -> None:
        """Forget the ring. A request that a worker holds ends unanswered."""
        lib.block_reset(self._native)
        self._activation = None
        self.fault = None

    def drain(self) -> Stop:
        """Serve what the driver has made available; says why it stopped.

        At most a millisecond; releases the GIL. After BUDGET call again soon:
        the driver does not kick. After WORKER a request has to end first.
        """
        stop: int = lib.block_drain(self._native)
        return _STOPS[stop]

    def limit(self, ops_allowed: int, bytes_allowed: int) -> None:
        """What each drain from now on may take; UNLIMITED is no limit.

        The request that reaches a limit is the last. Flushes have no bytes.
        """
        self._native.ops_allowed = ops_allowed
        self._native.bytes_allowed = bytes_allowed

    @property
    def used(self) -> tuple[int, int]:
        """Requests and bytes that the last drain took."""
        return self._native.ops_used, self._native.bytes_used

    def watch(self, kick_fd: int, loop_fd: int) -> None:
        """Lend the drain the queue's ioeventfd, to sleep on for a while.

        Reading it must not block. ``loop_fd`` ends the sleep when it is readable.
        """
        self._native.kick_fd, self._native.loop_fd = kick_fd, loop_fd

    def unwatch(self) -> None:
        """Sleep no more: the fds are about to be closed."""
        self._native.kick_fd = self._native.loop_fd = -1

    def collect(self) -> None:
        """Answer what workers have finished, and take nothing new."""
        lib.block_collect(self._native)

    def take(self) -> int | None:
        """The slot of a request for a worker to :meth:`run`; None: no more."""
        slot: int = lib.block_take(self._native)
        return None if slot < 0 else slot

    def run(self, slot: int) -> None:
        """Carry out a taken request. Blocks; made for a worker thread."""
        lib.block_run(self._native.slot + slot)

    @property
    def in_flight(self) -> int:
        """Requests that were popped and are not answered."""
        live: int = self._native.live
        return live

    @property
    def flushes(self) -> bool:
        """Whether what is written has to reach the disk (Writeback)."""
        return bool(self._native.writeback)

    def mark_fault(self) -> None:
        """After BROKEN: keep the rule that the ring broke, and count it."""
        self.fault = ffi.string(self._native.ring.fault).decode()
        self.event_fails += 1

    def replace(self, backing: Backing, path: str) -> None:
        """Go on with another file. Nothing may be in flight."""
        self._attach(backing)
        self._record = replace(self._record, path_on_host=path)
        self.update_count += 1

    def save(self) -> BlockState:
        """The record. Nothing may be in flight, which no record could hold."""
        return replace(self._record, limiter=self.limiter)

    def statistics(self) -> BlockStatistics:
        """The counters, read off."""
        counters = self._native.counters
        return BlockStatistics(
            activate_fails=0,
            cfg_fails=self.cfg_fails,
            no_avail_buffer=counters.no_avail,
            event_fails=self.event_fails,
            execute_fails=counters.malformed,
            invalid_reqs_count=counters.invalid,
            flush_count=counters.flushes,
            queue_event_count=self.queue_event_count + counters.doze_hits,
            rate_limiter_event_count=self.rate_limiter_event_count,
            update_count=self.update_count,
            update_fails=self.update_fails,
            read_bytes=counters.read_bytes,
            write_bytes=counters.write_bytes,
            read_count=counters.reads,
            write_count=counters.writes,
            rate_limiter_throttled_events=counters.throttled,
            io_engine_throttled_events=counters.engine_throttled,
            remaining_reqs_count=counters.remaining,
            read_agg=aggregate(counters.read_latency),
            write_agg=aggregate(counters.write_latency),
            worker_count=counters.workers,
            spin_count=counters.spins,
            spin_hit_count=counters.spin_hits,
            doze_count=counters.dozes,
            doze_hit_count=counters.doze_hits,
        )

    def _attach(self, backing: Backing) -> None:
        self._native.fd = backing.fd
        self._native.capacity = backing.size // SECTOR_SIZE
        self._native.nowait = backing.nowait
        device_id = backing.device_id[:ID_BYTES].ljust(ID_BYTES, b"\0")
        ffi.memmove(self._native.id, device_id, ID_BYTES)


_SYNC = "Sync"


@record("block", 3)
class BlockState:
    """A drive as it was configured, and what its limiter has left.

    Its ring is in the transport's record.
    """

    drive_id: str
    path_on_host: str
    is_read_only: bool = False
    is_root_device: bool = False
    partuuid: str | None = None
    cache_type: str = CacheType.UNSAFE.value
    io_engine: str = _SYNC
    limiter: LimiterState | None = None


@downgrade(BlockState, 3)
def _without_engine(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    older = without(fields, "io_engine")
    if fields["io_engine"] == _SYNC:
        return older, ()
    text = "Target version does not implement the current IO engine. Using Sync."
    return older, (Loss(("io_engine",), text),)


@upgrade(BlockState, 2)
def _with_engine(fields: Fields) -> tuple[Fields, Notes]:
    return with_fields(fields, {"io_engine": _SYNC}), ()


@downgrade(BlockState, 2)
def _without_cache_type(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    older = without(fields, "cache_type")
    if fields["cache_type"] == CacheType.UNSAFE.value:
        return older, ()
    text = (
        "Target version does not implement the current cache type."
        ' Defaulting to "unsafe" mode.'
    )
    return older, (Loss(("cache_type",), text),)


@upgrade(BlockState, 1)
def _with_cache_type(fields: Fields) -> tuple[Fields, Notes]:
    return with_fields(fields, {"cache_type": CacheType.UNSAFE.value}), ()
