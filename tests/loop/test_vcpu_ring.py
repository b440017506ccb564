"""The consumer's side of the posted ring and the mailbox, without threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmmd._native import ffi, lib

if TYPE_CHECKING:
    from vmmd._native import CData

SLOTS = 4


class Shared:
    """``struct vcpu_threads`` with a ring and two vCPUs that never run."""

    def __init__(self) -> None:
        self.slots = ffi.new("struct vcpu_posted[]", SLOTS)
        self.vcpus = [ffi.new("struct vcpu *") for _ in range(2)]
        self.all = ffi.new("struct vcpu_threads *")
        self.all.slot, self.all.mask, self.all.count = self.slots, SLOTS - 1, 2
        for i, vcpu in enumerate(self.vcpus):
            self.all.vcpu[i] = vcpu
        self.out = ffi.new("struct vcpu_posted[]", SLOTS)

    def reserve(self) -> int:
        """Take a ticket, as a producer does."""
        ticket: int = self.all.tail
        self.all.tail = ticket + 1
        return ticket

    def publish(self, ticket: int) -> None:
        """Fill its slot."""
        slot = self.slots[ticket % SLOTS]
        slot.value, slot.sequence = ticket, ticket + 1

    def take(self) -> list[int]:
        """The values of what can be consumed."""
        count = lib.vcpu_take_posted(self.all, self.out, SLOTS)
        return [self.out[i].value for i in range(count)]

    def ask(self, index: int) -> CData:
        """Let vCPU ``index`` wait for an answer; its mailbox."""
        mail = self.vcpus[index].mail
        mail.horizon, mail.word = self.all.tail, lib.VCPU_ASKED
        return mail


def test_the_consumer_stops_at_the_first_unpublished_slot() -> None:
    shared = Shared()
    tickets = [shared.reserve() for _ in range(3)]
    shared.publish(tickets[0])
    shared.publish(tickets[2])
    assert shared.take() == [0]
    assert shared.take() == []
    assert not lib.vcpu_posted_empty(shared.all)
    shared.publish(tickets[1])
    assert shared.take() == [1, 2]
    assert lib.vcpu_posted_empty(shared.all)


def test_slots_are_used_again_and_again() -> None:
    shared = Shared()
    for ticket in range(5 * SLOTS):
        shared.publish(shared.reserve())
        assert shared.take() == [ticket]
        assert shared.take() == []


def test_sleep_only_if_nothing_came_meanwhile() -> None:
    """The second look: what is published before the awaited ticket stands there
    signals nobody, so it has to be seen."""
    shared = Shared()
    assert lib.vcpu_arm(shared.all)
    shared.publish(shared.reserve())
    assert not lib.vcpu_arm(shared.all)
    shared.take()
    assert lib.vcpu_arm(shared.all)
    assert shared.all.awaited == 1
    shared.ask(1)
    assert not lib.vcpu_arm(shared.all)


def test_a_reserved_slot_does_not_keep_the_loop_awake() -> None:
    """Its producer finds its own ticket awaited, and signals."""
    shared = Shared()
    shared.reserve()
    shared.ask(0)
    assert lib.vcpu_arm(shared.all)
    assert shared.all.awaited == 0


def test_an_answer_waits_for_its_horizon() -> None:
    shared = Shared()
    ticket = shared.reserve()
    shared.ask(0)
    assert lib.vcpu_next_asked(shared.all, 0) == 2
    shared.publish(ticket)
    assert lib.vcpu_next_asked(shared.all, 0) == 2
    shared.take()
    assert lib.vcpu_next_asked(shared.all, 0) == 0
    assert lib.vcpu_next_asked(shared.all, 1) == 2


@pytest.mark.parametrize("word", [0, 2, 4, 5])
def test_an_answer_that_nobody_waits_for_is_dropped(word: int) -> None:
    """Empty, answered already, stopped, stopped while asking."""
    shared = Shared()
    shared.vcpus[0].mail.word = word
    assert not lib.vcpu_answer(shared.vcpus[0])
    assert shared.vcpus[0].mail.word == word


def test_an_answer_is_given_once() -> None:
    shared = Shared()
    mail = shared.ask(0)
    assert lib.vcpu_answer(shared.vcpus[0])
    assert mail.word == lib.VCPU_ANSWERED
    assert not lib.vcpu_answer(shared.vcpus[0])
