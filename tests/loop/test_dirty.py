"""The dirty union against a model: no page is ever lost, none comes twice."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vmmd.errors import HostError
from vmmd.loop.dirty import DirtyUnion
from vmmd.memory import PAGE_SIZE, GuestMemory, Region

LOW, HIGH = 70, 3  # pages; neither a whole word of the bitmap
GAP = 1 << 32
pages = st.integers(0, LOW + HIGH - 1)


def gpa(page: int) -> int:
    return page * PAGE_SIZE if page < LOW else GAP + (page - LOW) * PAGE_SIZE


def as_set(bits: int) -> set[int]:
    return {page for page in range(bits.bit_length()) if bits >> page & 1}


class Kvm:
    """KVM's dirty log: reading it clears it, and a read may fail."""

    def __init__(self) -> None:
        self.dirty: set[int] = set()
        self.failing: int | None = None

    def log(self, slot: int, size: int) -> bytes:
        if slot == self.failing:
            raise HostError("KVM_GET_DIRTY_LOG")
        first, count = (0, LOW) if slot == 0 else (LOW, HIGH)
        assert size == count * PAGE_SIZE
        mine = {page for page in self.dirty if first <= page < first + count}
        self.dirty -= mine
        words = (count + 63) // 64 * 8
        return sum(1 << page - first for page in mine).to_bytes(words, "little")


class DirtyModel(RuleBasedStateMachine):
    """A guest, its host, and creates that work or fail anywhere."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((0, LOW), (GAP, HIGH))
        regions = [Region(at, bytearray(n * PAGE_SIZE)) for at, n in sizes]
        self.memory = GuestMemory(regions)
        self.kvm = Kvm()
        self.union = DirtyUnion(self.memory, self.kvm.log)
        self.expected: set[int] = set()

    @rule(page=pages)
    def guest_writes(self, page: int) -> None:
        self.kvm.dirty.add(page)
        self.expected.add(page)

    @rule(page=pages, data=st.binary(min_size=1, max_size=5))
    def host_writes(self, page: int, data: bytes) -> None:
        self.memory.write(gpa(page), data)
        self.expected.add(page)

    @rule()
    def create_works(self) -> None:
        assert as_set(self.union.collect()) == self.expected
        self.union.commit()
        self.expected = set()

    @rule()
    def create_fails(self) -> None:
        """After the log was read, which cleared it."""
        assert as_set(self.union.collect()) == self.expected

    @rule(slot=st.integers(0, 1))
    def the_log_fails(self, slot: int) -> None:
        """Perhaps with one slot read and cleared."""
        self.kvm.failing = slot
        with pytest.raises(HostError):
            self.union.collect()
        self.kvm.failing = None

    @invariant()
    def nothing_is_elsewhere(self) -> None:
        assert self.kvm.dirty <= self.expected


TestDirtyUnion = DirtyModel.TestCase


def test_without_tracking_all_writes_since_the_mapping_count() -> None:
    memory = GuestMemory([Region(0, bytearray(LOW * PAGE_SIZE))])
    union = DirtyUnion(memory)
    assert not union.tracked
    memory.write(gpa(3), b"x")
    assert as_set(union.collect()) == {3}
    union.commit()
    memory.write(gpa(4), b"x")
    assert as_set(union.collect()) == {3, 4}
