"""The device side of a split virtqueue in plain Python: the oracle for ring.c.

Written from the specification (virtio 1.2, 2.7), for clarity alone. It does the
same checks in the same order and names the same faults.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.helpers.driver import INDIRECT, NEXT, WRITE, RingLayout, need_event
from vmmd.errors import GuestError
from vmmd.virtio.ring import Chain, RingState, Segment

if TYPE_CHECKING:
    from vmmd.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One entry of the table, as the guest wrote it."""

    addr: int
    length: int
    flags: int
    next: int


@dataclass(slots=True)
class RingModel:
    """Same verbs, results and memory as ``vmmd.virtio.ring.Ring``."""

    memory: GuestMemory
    layout: RingLayout
    event_idx: bool
    next_avail: int = 0
    next_used: int = 0
    signalled_used: int = 0
    signalled_valid: bool = False
    fault: str = ""
    in_flight: set[int] = field(default_factory=set)
    stale: int = 0

    def pop(self) -> Chain | None:
        """The next chain, or None; GuestError for good once a rule is broken."""
        if self.fault:
            raise GuestError(self.fault)
        layout = self.layout
        ahead = (self._avail_idx() - self.next_avail) & 0xFFFF
        if ahead == 0:
            return None
        if ahead > layout.size:
            raise self._break("available index is more than the queue ahead")
        slot = self.next_avail % layout.size
        head = self.memory.load_u16(layout.avail + 4 + 2 * slot)
        if head >= layout.size:
            raise self._break("head is outside the table")
        if head in self.in_flight:
            raise self._break("head is offered while in flight")
        chain = self._chain(head)
        self.in_flight.add(head)
        self.next_avail = (self.next_avail + 1) & 0xFFFF
        return chain

    def undo_pop(self, head: int) -> None:
        """Give the last chain back."""
        if head in self.in_flight:
            self.in_flight.remove(head)
            self.next_avail = (self.next_avail - 1) & 0xFFFF

    def push(self, head: int, written: int) -> None:
        """Answer a chain in flight; else only count."""
        if head not in self.in_flight:
            self.stale += 1
            return
        self.in_flight.remove(head)
        at = self.layout.used + 4 + 8 * (self.next_used % self.layout.size)
        self.memory.store_u32(at, head)
        self.memory.store_u32(at + 4, written)
        self.next_used = (self.next_used + 1) & 0xFFFF
        self.memory.store_u16(self.layout.used + 2, self.next_used)

    def pending(self) -> bool:
        """Whether a chain waits."""
        return not self.fault and self._avail_idx() != self.next_avail

    def should_signal(self) -> bool:
        """Whether the driver wants an interrupt for the pushes since last asked."""
        old, valid = self.signalled_used, self.signalled_valid
        if old == self.next_used:
            return False
        self.signalled_used, self.signalled_valid = self.next_used, True
        if not self.event_idx:
            return not self.memory.load_u16(self.layout.avail) & 1
        event = self.memory.load_u16(self.layout.used_event)
        return not valid or need_event(event, self.next_used, old)

    def suppress_kicks(self) -> None:
        """Ask for no kicks."""
        if not self.event_idx:
            self._tell(self.layout.used, 1)
            return
        event = self.memory.load_u16(self.layout.avail_event)
        if not 0x4000 <= (event - self.next_avail) & 0xFFFF < 0xC000:
            self._tell(self.layout.avail_event, (self.next_avail + 0x8000) & 0xFFFF)

    def arm_kicks(self) -> bool:
        """Ask for kicks and look once more."""
        if self.event_idx:
            self._tell(self.layout.avail_event, self.next_avail)
        else:
            self._tell(self.layout.used, 0)
        return self.pending()

    def save(self) -> RingState:
        """The record that the real ring would save."""
        return RingState(
            ready=True,
            size=self.layout.size,
            desc=self.layout.desc,
            avail=self.layout.avail,
            used=self.layout.used,
            event_idx=self.event_idx,
            next_avail=self.next_avail,
            next_used=self.next_used,
            signalled_used=self.signalled_used,
            signalled_valid=self.signalled_valid,
            broken=bool(self.fault),
            in_flight=tuple(sorted(self.in_flight)),
        )

    def _avail_idx(self) -> int:
        return self.memory.load_u16(self.layout.avail + 2)

    def _tell(self, gpa: int, value: int) -> None:
        if self.memory.load_u16(gpa) != value:
            self.memory.store_u16(gpa, value)

    def _break(self, fault: str) -> GuestError:
        self.fault = fault
        return GuestError(fault)

    def _descriptor(self, index: int) -> Descriptor:
        raw = self.memory.read(self.layout.desc + 16 * index, 16)
        return Descriptor(*struct.unpack("<QIHH", raw))

    def _chain(self, head: int) -> Chain:
        parts: list[Descriptor] = []
        following = head
        while True:
            if following >= self.layout.size:
                raise self._break("next descriptor is outside the table")
            if len(parts) == self.layout.size:
                raise self._break("descriptor chain loops")
            part = self._descriptor(following)
            self._check(part, parts)
            parts.append(part)
            if not part.flags & NEXT:
                break
            following = part.next
        if sum(part.length for part in parts) >= 1 << 32:
            raise self._break("chain is longer than 4 GiB")
        return Chain(
            head=head,
            readable=_segments(parts, writable=False),
            writable=_segments(parts, writable=True),
        )

    def _check(self, part: Descriptor, before: list[Descriptor]) -> None:
        if part.flags & INDIRECT:
            raise self._break("indirect descriptor, which was not offered")
        try:
            self.memory.slice(part.addr, part.length)
        except GuestError:
            raise self._break("buffer is not in guest memory") from None
        if not part.flags & WRITE and any(other.flags & WRITE for other in before):
            raise self._break("readable descriptor after a writable one")


def _segments(parts: list[Descriptor], *, writable: bool) -> tuple[Segment, ...]:
    return tuple(
        Segment(part.addr, part.length)
        for part in parts
        if bool(part.flags & WRITE) is writable
    )
