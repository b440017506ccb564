"""Hypothesis strategies that more than one test file draws from.

Structured, not random bytes: most draws are nearly right, so that they get past
the first check and break a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from tests.helpers.driver import INDIRECT, NEXT, WRITE, Buffer, Driver, RingLayout

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

MEMORY_SIZE = 0x10000
EDGES = (0, 1, MEMORY_SIZE - 1, MEMORY_SIZE, (1 << 32) - 1, (1 << 64) - 1)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Honest:
    """Offer a chain as a driver would, if descriptors are free."""

    buffers: tuple[Buffer, ...]

    def apply(self, driver: Driver) -> None:
        """Do it."""
        if len(self.buffers) <= len(driver.free):
            driver.add(self.buffers)


@dataclass(frozen=True, slots=True)
class Reap:
    """Take what was used and free it, as a driver would."""

    def apply(self, driver: Driver) -> None:
        """Do it; a driver that was lied to gives up at the first lie."""
        try:
            driver.reap()
        except KeyError:
            driver.last_used = driver.used_index()


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for the interrupt ``ahead`` answers from the device's used index."""

    ahead: int

    def apply(self, driver: Driver) -> None:
        """Do it."""
        driver.want_interrupt_at(driver.used_index() + self.ahead)


@dataclass(frozen=True, slots=True)
class PokeDescriptor:
    """Write any descriptor, also one in flight."""

    index: int
    buffer: Buffer
    flags: int
    following: int

    def apply(self, driver: Driver) -> None:
        """Do it."""
        index = self.index % driver.layout.size
        driver.poke_desc(index, self.buffer, self.flags, self.following)


@dataclass(frozen=True, slots=True)
class Crafted:
    """Offer a chain of descriptors 0, 1, ... of which all but ``odd`` is right."""

    buffers: tuple[Buffer, ...]
    odd: tuple[int, int, int]

    def apply(self, driver: Driver) -> None:
        """Do it: descriptor ``odd[0]`` gets other flags and another successor."""
        size, last = driver.layout.size, len(self.buffers) - 1
        for i, buffer in enumerate(self.buffers):
            flags, following = buffer.flags | (NEXT if i < last else 0), i + 1
            if i == self.odd[0]:
                flags, following = flags ^ self.odd[1], self.odd[2]
            driver.poke_desc(i % size, buffer, flags, following % (size + 1))
        driver.offer(0)


@dataclass(frozen=True, slots=True)
class Offer:
    """Make any head available, also one in flight or outside the table."""

    head: int

    def apply(self, driver: Driver) -> None:
        """Do it."""
        driver.offer(self.head)


@dataclass(frozen=True, slots=True)
class Jump:
    """Move the available index by any distance."""

    distance: int

    def apply(self, driver: Driver) -> None:
        """Do it."""
        driver.poke_avail_idx(driver.avail_idx + self.distance)


@dataclass(frozen=True, slots=True)
class PokeRing:
    """Write two bytes anywhere in the three parts of the ring."""

    part: int
    offset: int
    value: int

    def apply(self, driver: Driver) -> None:
        """Do it."""
        layout = driver.layout
        start, length = (
            (layout.desc, 16 * layout.size),
            (layout.avail, 6 + 2 * layout.size),
            (layout.used, 6 + 8 * layout.size),
        )[self.part]
        driver.memory.store_u16(start + 2 * (self.offset % (length // 2)), self.value)


Mischief = Honest | Reap | Ask | Crafted | PokeDescriptor | Offer | Jump | PokeRing


def long_lists(items: SearchStrategy[T], max_size: int) -> SearchStrategy[list[T]]:
    """Lists of any length up to ``max_size``, long ones as often as short ones."""
    return st.integers(0, max_size).flatmap(
        lambda n: st.lists(items, min_size=n, max_size=n)
    )


def ring_layouts(max_size: int = 8) -> SearchStrategy[RingLayout]:
    """Rings in MEMORY_SIZE bytes at 0: tidy, straddling pages, or overlapping."""

    def scattered(size: int, at: tuple[int, int, int]) -> RingLayout:
        return RingLayout(at[0] & ~15, at[1] & ~1, at[2] & ~3, size)

    sizes = st.sampled_from([1 << n for n in range(max_size.bit_length())])
    place = st.integers(0x0FE0, 0x2080)
    return st.one_of(
        st.builds(lambda size: RingLayout.at(0x1000, size), sizes),
        st.builds(scattered, sizes, st.tuples(place, place, place)),
    )


def buffers() -> SearchStrategy[Buffer]:
    """Buffers that lie in memory, apart from the rings, or just about not."""
    inside = st.builds(
        Buffer, st.integers(0x4000, 0xE000), st.integers(0, 0x800), st.booleans()
    )
    edge = st.builds(
        Buffer, st.sampled_from(EDGES), st.sampled_from(EDGES[:5]), st.booleans()
    )
    anywhere = st.builds(
        Buffer, st.integers(0, MEMORY_SIZE), st.integers(0, 0x100), st.booleans()
    )
    return st.one_of(inside, inside, inside, anywhere, edge)


def chains() -> SearchStrategy[tuple[Buffer, ...]]:
    """Chains in the right order: readable, then writable, all in memory."""
    place, length = st.integers(0x4000, 0xE000), st.integers(0, 0x800)

    def parts(writable: bool, at_least: int) -> SearchStrategy[list[Buffer]]:
        one = st.builds(Buffer, place, length, st.just(writable))
        return st.lists(one, min_size=at_least, max_size=3)

    return st.one_of(
        st.tuples(parts(False, 0), parts(True, 1)),
        st.tuples(parts(False, 1), parts(True, 0)),
    ).map(lambda both: (*both[0], *both[1]))


def mischief() -> SearchStrategy[Mischief]:
    """What a driver does: honest things and everything else."""
    flags = st.one_of(st.sampled_from([0, NEXT, WRITE, NEXT | WRITE, INDIRECT]), U16)
    near = st.one_of(st.integers(0, 9), U16)
    honest = st.builds(Honest, chains())
    odd = st.tuples(
        st.integers(0, 4), st.sampled_from([NEXT, WRITE, INDIRECT, 0]), near
    )
    hostile = st.one_of(
        st.builds(Crafted, chains(), odd),
        st.builds(Crafted, st.lists(buffers(), min_size=1, max_size=4).map(tuple), odd),
        st.builds(PokeDescriptor, st.integers(0, 255), buffers(), flags, near),
        st.builds(Offer, near),
        st.builds(Jump, st.one_of(st.integers(-2, 10), U16)),
        st.builds(PokeRing, st.integers(0, 2), st.integers(0, 1023), near),
    )
    # A broken ring stays broken: so that there is something to break, most is honest.
    wants = st.one_of(st.builds(Reap), st.builds(Ask, st.integers(-1, 2)))
    return st.integers(0, 9).flatmap(
        lambda n: honest if n < 5 else wants if n < 8 else hostile
    )
