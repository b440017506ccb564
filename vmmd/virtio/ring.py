"""A virtqueue's control plane, and its data path for devices paced by Python.

``ring.c`` is the data path; ``Ring`` wraps its ``struct ring``. Devices that
drain whole batches (block, net) hand ``native`` to their own C; the others pop
one :class:`Chain` at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.errors import GuestError, SnapshotError
from vmmd.frozen import dataclass
from vmmd.state.record import (
    NOTIFICATION_SUPPRESSION,
    U16,
    Loss,
    Refusal,
    downgrade,
    record,
    upgrade,
    with_fields,
    without,
)

if TYPE_CHECKING:
    from vmmd.memory import GuestMemory
    from vmmd.state.record import Fields, Notes

MAX_SIZE: int = lib.RING_MAX_SIZE


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` bytes of guest memory at ``gpa``: checked, but not copied."""

    gpa: int
    length: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A descriptor chain: what the device may read, then what it may write."""

    head: int
    readable: tuple[Segment, ...]
    writable: tuple[Segment, ...]

    @property
    def readable_len(self) -> int:
        """Bytes that the driver hands over."""
        return sum(segment.length for segment in self.readable)

    @property
    def writable_len(self) -> int:
        """Bytes that the driver has room for."""
        return sum(segment.length for segment in self.writable)


class Ring:
    """One split virtqueue, device side.

    Set up by ``configure`` (boot) or ``restore`` (snapshot); ``native`` is the
    ``struct ring *`` for C, at a fixed address as long as this object lives.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.native = ffi.new("struct ring *")
        self.native.mem = memory.native
        self._chain = ffi.new("struct ring_chain *")

    @property
    def ready(self) -> bool:
        """Whether the ring is enabled (and perhaps broken)."""
        return bool(self.native.ready)

    @property
    def broken(self) -> bool:
        """Whether the driver broke the rules; for good, until a reset."""
        return bool(self.native.broken)

    @property
    def fault(self) -> str:
        """The rule that was broken; empty if none."""
        if self.native.fault == ffi.NULL:
            return ""
        text: bytes = ffi.string(self.native.fault)
        return text.decode()

    @property
    def epoch(self) -> int:
        """Grows at each reset: tells an answer that comes after one."""
        epoch: int = self.native.epoch
        return epoch

    @property
    def size(self) -> int:
        """Descriptors in the table; 0 when off."""
        size: int = self.native.size
        return size

    @property
    def in_flight(self) -> tuple[int, ...]:
        """The heads that were popped and not pushed, in order of number."""
        words = self.native.in_flight
        return tuple(
            head for head in range(MAX_SIZE) if words[head // 64] >> head % 64 & 1
        )

    def configure(
        self, size: int, desc: int, avail: int, used: int, *, event_idx: bool
    ) -> None:
        """Enable a fresh ring at guest addresses. GuestError: what is wrong."""
        self.restore(
            RingState(
                ready=True,
                size=size,
                desc=desc,
                avail=avail,
                used=used,
                event_idx=event_idx,
            )
        )

    def reset(self) -> None:
        """Off, with nothing in flight. Pushes that come later are ignored."""
        lib.ring_reset(self.native)

    def pop(self) -> Chain | None:
        """The next chain, or None. GuestError when the ring is or gets broken."""
        chain = self._chain
        result = lib.ring_pop(self.native, chain)
        if result == lib.RING_BROKEN:
            raise GuestError(self.fault)
        if result == lib.RING_EMPTY:
            return None
        segments = [
            Segment(chain.gpa[i], chain.segment[i].iov_len)
            for i in range(chain.readable + chain.writable)
        ]
        return Chain(
            head=chain.head,
            readable=tuple(segments[: chain.readable]),
            writable=tuple(segments[chain.readable :]),
        )

    def undo_pop(self, chain: Chain) -> None:
        """Give the chain popped last back: the next ``pop`` returns it again."""
        lib.ring_undo_pop(self.native, chain.head)

    def push(self, head: int, written: int) -> None:
        """Answer the chain of ``head``, of which ``written`` bytes were written.

        Ignored (and counted) when the head is not in flight.
        """
        lib.ring_push(self.native, head, written)

    def pending(self) -> bool:
        """Whether a chain waits."""
        return bool(lib.ring_pending(self.native))

    def should_signal(self) -> bool:
        """Whether the driver wants an interrupt for the pushes since last asked."""
        return bool(lib.ring_should_signal(self.native))

    def suppress_kicks(self) -> None:
        """Ask the driver not to kick: the device looks by itself."""
        lib.ring_suppress_kicks(self.native)

    def arm_kicks(self) -> bool:
        """Ask for kicks again and look once more: True if a chain waits."""
        return bool(lib.ring_arm_kicks(self.native))

    def gather(self, chain: Chain, limit: int) -> bytes:
        """A copy of the first ``limit`` readable bytes. GuestError as memory's."""
        parts = []
        for segment in chain.readable:
            take = min(segment.length, limit)
            parts.append(self.memory.read(segment.gpa, take))
            limit -= take
        return b"".join(parts)

    def scatter(self, chain: Chain, data: bytes | memoryview) -> int:
        """Store ``data`` into the writable part; the bytes that had room."""
        done = 0
        for segment in chain.writable:
            part = data[done : done + segment.length]
            self.memory.write(segment.gpa, part)
            done += len(part)
        return done

    def save(self) -> RingState:
        """The ring's state; a fault's text is not kept, that it broke is."""
        native = self.native
        return RingState(
            ready=self.ready,
            size=native.size,
            desc=native.desc,
            avail=native.avail,
            used=native.used,
            event_idx=bool(native.event_idx),
            next_avail=native.next_avail,
            next_used=native.next_used,
            signalled_used=native.signalled_used,
            signalled_valid=bool(native.signalled_valid),
            broken=self.broken,
            in_flight=self.in_flight,
        )

    def restore(self, state: RingState) -> None:
        """Take ``state`` and enable the ring (not ready: leave it off).

        GuestError when the rings do not lie in guest memory.
        """
        self.reset()
        if not state.ready:
            return
        native = self.native
        native.size, native.desc, native.avail = state.size, state.desc, state.avail
        native.used, native.event_idx = state.used, state.event_idx
        native.next_avail, native.next_used = state.next_avail, state.next_used
        native.signalled_used = state.signalled_used
        native.signalled_valid = state.signalled_valid
        for head in state.in_flight:
            native.in_flight[head // 64] |= 1 << head % 64
        if lib.ring_enable(native):
            fault = self.fault
            self.reset()
            raise GuestError(fault)
        if state.broken:
            native.broken, native.fault = True, _RESTORED_BROKEN


_RESTORED_BROKEN = ffi.new("char[]", b"ring was broken when it was saved")


@record("ring", 2)
class RingState:
    """A queue; off unless ``ready``. Indices are free-running u16."""

    ready: bool = False
    size: U16 = 0
    desc: int = 0
    avail: int = 0
    used: int = 0
    event_idx: bool = False
    next_avail: U16 = 0
    next_used: U16 = 0
    signalled_used: U16 = 0
    signalled_valid: bool = False
    broken: bool = False
    in_flight: tuple[U16, ...] = ()

    def __post_init__(self) -> None:
        """SnapshotError naming the field that is out of range."""
        for name in ("next_avail", "next_used", "signalled_used"):
            _in_range(name, getattr(self, name), 0xFFFF)
        for name in ("desc", "avail", "used"):
            _in_range(name, getattr(self, name), (1 << 64) - 1)
        _in_range("size", self.size, MAX_SIZE)
        for head in self.in_flight:
            _in_range("in_flight", head, self.size - 1)
        if list(self.in_flight) != sorted(set(self.in_flight)):
            raise SnapshotError("ring: in_flight is not in order")
        if (self.next_avail - self.next_used) & 0xFFFF != len(self.in_flight):
            raise SnapshotError("ring: in_flight does not agree with the indices")


def _in_range(name: str, value: int, top: int) -> None:
    if not 0 <= value <= top:
        raise SnapshotError(f"ring: {name} {value} is out of range")


@downgrade(RingState, 2)
def _without_suppression(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    """Version 1 did not suppress notifications, nor keep which it had sent."""
    older = without(fields, "event_idx", "signalled_used", "signalled_valid")
    if fields["event_idx"]:
        return older, (Refusal(("event_idx",), NOTIFICATION_SUPPRESSION),)
    if _with_suppression(older)[0] == fields:
        return older, ()
    text = "Saving to older snapshot version, pending notifications will not be saved."
    return older, (Loss(("signalled_used", "signalled_valid"), text),)


@upgrade(RingState, 1)
def _with_suppression(fields: Fields) -> tuple[Fields, Notes]:
    used = fields["next_used"]
    new = {"event_idx": False, "signalled_used": used, "signalled_valid": used != 0}
    return with_fields(fields, new), ()
