"""The queue registers of a transport, and the rings that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.errors import GuestError, SnapshotError
from vmmd.virtio.registers import QUEUE_DESC, U32
from vmmd.virtio.ring import Ring, RingState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmmd.memory import GuestMemory


class _Queue:
    """``address``: descriptor table, available ring, used ring."""

    def __init__(self, max_size: int, ring: Ring) -> None:
        self.max_size = max_size
        self.ring = ring
        self.size = 0
        self.address = [0, 0, 0]
        self.ready = False

    def take(self, state: RingState) -> None:
        """Set the registers from a record."""
        self.size, self.ready = state.size, state.ready
        self.address = [state.desc, state.avail, state.used]

    def fresh(self, *, event_idx: bool) -> RingState:
        """The ring as the registers describe it, never used."""
        desc, avail, used = self.address
        return RingState(
            ready=self.ready,
            size=self.size,
            desc=desc,
            avail=avail,
            used=used,
            event_idx=event_idx,
        )


class Queues:
    """All queues of a device. Each ``write_`` says whether it was legal.

    The transport calls those that configure only while the driver may: after
    FEATURES_OK, before DRIVER_OK.
    """

    def __init__(self, memory: GuestMemory, sizes: Sequence[int]) -> None:
        self._queues = tuple(_Queue(size, Ring(memory)) for size in sizes)
        self.rings = tuple(queue.ring for queue in self._queues)
        self.select = 0

    @property
    def num_max(self) -> int:
        """QueueNumMax of the selected queue; 0 if there is none."""
        queue = self._selected()
        return queue.max_size if queue else 0

    @property
    def ready(self) -> bool:
        """QueueReady of the selected queue."""
        queue = self._selected()
        return queue is not None and queue.ready

    def write_select(self, value: int) -> bool:
        """Select any queue, also one that is not there."""
        self.select = value
        return True

    def write_num(self, value: int) -> bool:
        """Set the size: a power of two up to the maximum, before ready."""
        queue = self._selected()
        if not queue or queue.ready or not _fits(value, queue.max_size):
            return False
        queue.size = value
        return True

    def write_address(self, offset: int, value: int) -> bool:
        """Set half of an address, by the register's offset, before ready."""
        queue = self._selected()
        if not queue or queue.ready:
            return False
        which, shift = (offset - QUEUE_DESC) >> 4, 32 if offset & 4 else 0
        kept = queue.address[which] & ~(U32 << shift)
        queue.address[which] = kept | value << shift
        return True

    def write_ready(self, value: int) -> bool:
        """Set QueueReady, or take it back."""
        queue = self._selected()
        if not queue or value > 1:
            return False
        queue.ready = bool(value)
        return True

    def fresh(self, *, event_idx: bool) -> tuple[RingState, ...]:
        """The rings as the registers describe them, never used."""
        return tuple(queue.fresh(event_idx=event_idx) for queue in self._queues)

    def save(self) -> tuple[RingState, ...]:
        """The rings as they are; those that are off by their registers."""
        return tuple(
            queue.ring.save() if queue.ring.ready else queue.fresh(event_idx=False)
            for queue in self._queues
        )

    def start(self, states: Sequence[RingState]) -> None:
        """Enable the ready ones. GuestError: which rule of the ring's, all off."""
        try:
            for queue, state in zip(self._queues, states, strict=True):
                queue.ring.restore(state)
        except GuestError:
            self.stop()
            raise

    def stop(self) -> None:
        """All rings off; the registers stay."""
        for ring in self.rings:
            ring.reset()

    def take(self, states: Sequence[RingState]) -> None:
        """Set the registers. SnapshotError if the records do not fit."""
        if len(states) != len(self._queues):
            raise SnapshotError(
                f"mmio: {len(states)} queues, the device has {len(self._queues)}"
            )
        for queue, state in zip(self._queues, states, strict=True):
            if state.size and not _fits(state.size, queue.max_size):
                raise SnapshotError(f"mmio: queue size {state.size} does not fit")
            queue.take(state)

    def reset(self) -> None:
        """As after power-on."""
        self.stop()
        self.select = 0
        for queue in self._queues:
            queue.take(RingState())

    def _selected(self) -> _Queue | None:
        if self.select < len(self._queues):
            return self._queues[self.select]
        return None


def _fits(size: int, max_size: int) -> bool:
    return 0 < size <= max_size and not size & (size - 1)
