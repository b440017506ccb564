"""The guest's side of a split virtqueue, over the same memory as the device.

Honest by default: it owns descriptors, frees what the device used, and says
whether a kick is due. The hostile tests use its ``poke_*`` methods, which write
what no driver would.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmmd.errors import GuestError
from vmmd.memory import GuestMemory, Region

if TYPE_CHECKING:
    from collections.abc import Sequence

NEXT, WRITE, INDIRECT = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Buffer:
    """One descriptor: ``length`` bytes at ``gpa``; ``writable`` by the device."""

    gpa: int
    length: int
    writable: bool = False

    @property
    def flags(self) -> int:
        """The descriptor's flags without NEXT."""
        return WRITE if self.writable else 0


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Where the three parts of a queue lie in guest memory."""

    desc: int
    avail: int
    used: int
    size: int

    @classmethod
    def at(cls, base: int, size: int) -> RingLayout:
        """The parts one after the other at ``base``, as Linux lays them out."""
        avail = base + 16 * size
        used = (avail + 6 + 2 * size + 3) & ~3
        return cls(desc=base, avail=avail, used=used, size=size)

    @property
    def end(self) -> int:
        """The first address after the used ring."""
        return self.used + 6 + 8 * self.size

    @property
    def used_event(self) -> int:
        """Where the driver says at which used index it wants an interrupt."""
        return self.avail + 4 + 2 * self.size

    @property
    def avail_event(self) -> int:
        """Where the device says at which available index it wants a kick."""
        return self.used + 4 + 8 * self.size

    def clear(self, memory: GuestMemory) -> None:
        """Zero all three parts, as far as they lie in memory."""
        for gpa, length in (
            (self.desc, 16 * self.size),
            (self.avail, 6 + 2 * self.size),
            (self.used, 6 + 8 * self.size),
        ):
            with contextlib.suppress(GuestError):
                memory.write(gpa, bytes(length))


def guest_memory(size: int = 0x20000, gpa: int = 0) -> GuestMemory:
    """One region of zeroes."""
    return GuestMemory([Region(gpa, bytearray(size))])


@dataclass(slots=True)
class Driver:
    """Drives one queue from the guest's side.

    ``add`` makes a chain available, ``reap`` takes what the device used and
    frees its descriptors. Raises IndexError when the descriptors are all out.
    """

    memory: GuestMemory
    layout: RingLayout
    event_idx: bool = False
    free: list[int] = field(default_factory=list)
    chains: dict[int, list[int]] = field(default_factory=dict)
    avail_idx: int = 0
    last_used: int = 0
    kicked_at: int = 0

    def __post_init__(self) -> None:
        self.free = list(range(self.layout.size))[::-1]

    def reset(self) -> None:
        """Start anew with zeroed rings, as after a device reset."""
        self.__post_init__()
        self.chains.clear()
        self.avail_idx = self.last_used = self.kicked_at = 0
        self.layout.clear(self.memory)

    def add(self, buffers: Sequence[Buffer]) -> int:
        """Make a chain of ``buffers`` available; its head."""
        if len(buffers) > len(self.free):
            raise IndexError("no free descriptors")
        ids = [self.free.pop() for _ in buffers]
        for i, buffer in enumerate(buffers):
            last = i + 1 == len(buffers)
            self.poke_desc(
                ids[i],
                buffer,
                flags=buffer.flags | (0 if last else NEXT),
                following=0 if last else ids[i + 1],
            )
        self.chains[ids[0]] = ids
        self.offer(ids[0])
        return ids[0]

    def offer(self, head: int) -> None:
        """Put ``head`` into the available ring and publish the index."""
        slot = self.avail_idx % self.layout.size
        self.memory.store_u16(self.layout.avail + 4 + 2 * slot, head)
        self.avail_idx = (self.avail_idx + 1) & 0xFFFF
        self.memory.store_u16(self.layout.avail + 2, self.avail_idx)

    def kick_due(self) -> bool:
        """Whether the device asked for a kick for what was added since the last."""
        old, self.kicked_at = self.kicked_at, self.avail_idx
        if not self.event_idx:
            return not self.memory.load_u16(self.layout.used) & 1
        event = self.memory.load_u16(self.layout.avail_event)
        return need_event(event, self.avail_idx, old)

    def used_index(self) -> int:
        """The device's used index."""
        return self.memory.load_u16(self.layout.used + 2)

    def used_entry(self, index: int) -> tuple[int, int]:
        """(head, written) at a free-running used index."""
        at = self.layout.used + 4 + 8 * (index % self.layout.size)
        return self.memory.load_u32(at), self.memory.load_u32(at + 4)

    def reap(self) -> list[tuple[int, int]]:
        """All (head, written) used since the last call; frees the descriptors.

        Asks for the next interrupt at once, as Linux does. KeyError when the
        device used a head that was not in flight.
        """
        done = []
        while self.last_used != self.used_index():
            head, written = self.used_entry(self.last_used)
            self.free.extend(reversed(self.chains.pop(head)))
            done.append((head, written))
            self.last_used = (self.last_used + 1) & 0xFFFF
        self.want_interrupt_at(self.last_used)
        return done

    def want_interrupt_at(self, used_index: int) -> None:
        """Write used_event (only with EVENT_IDX)."""
        if self.event_idx:
            self.memory.store_u16(self.layout.used_event, used_index & 0xFFFF)

    def want_interrupts(self, wanted: bool) -> None:
        """Write the available ring's flags (without EVENT_IDX)."""
        self.memory.store_u16(self.layout.avail, 0 if wanted else 1)

    def poke_desc(self, index: int, buffer: Buffer, flags: int, following: int) -> None:
        """Write a descriptor, however wrong."""
        raw = struct.pack("<QIHH", buffer.gpa, buffer.length, flags, following)
        self.memory.write(self.layout.desc + 16 * index, raw)

    def poke_avail_idx(self, value: int) -> None:
        """Write the available index, however wrong."""
        self.avail_idx = value & 0xFFFF
        self.memory.store_u16(self.layout.avail + 2, self.avail_idx)


def need_event(event: int, new: int, old: int) -> bool:
    """The specification's vring_need_event."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
