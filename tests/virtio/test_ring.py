"""The split ring: what each rule of the specification gives, one by one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.helpers.driver import (
    INDIRECT,
    NEXT,
    Buffer,
    Driver,
    RingLayout,
    guest_memory,
)
from vmmd._native import ffi, lib
from vmmd.bus import RegisterPage
from vmmd.errors import GuestError, SnapshotError
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.ring import Ring, RingState, Segment

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = RingLayout.at(0x1000, 8)
OUT = Buffer(0x8000, 16)
IN = Buffer(0x9000, 512, writable=True)


def rig(*, event_idx: bool = False) -> tuple[Driver, Ring]:
    """A driver and a device on one memory."""
    memory = guest_memory()
    driver = Driver(memory, LAYOUT, event_idx=event_idx)
    ring = Ring(memory)
    ring.configure(
        LAYOUT.size, LAYOUT.desc, LAYOUT.avail, LAYOUT.used, event_idx=event_idx
    )
    return driver, ring


def answer_all(ring: Ring) -> int:
    """Pop and push whatever waits; how many."""
    count = 0
    while (chain := ring.pop()) is not None:
        ring.push(chain.head, chain.writable_len)
        count += 1
    return count


def test_a_chain_goes_down_and_its_answer_comes_up() -> None:
    driver, ring = rig()
    driver.memory.write(0x8000, b"0123456789abcdef")
    head = driver.add([OUT, IN])
    assert ring.pending()
    chain = ring.pop()
    assert chain is not None
    assert chain.readable == (Segment(0x8000, 16),)
    assert chain.writable == (Segment(0x9000, 512),)
    assert (chain.readable_len, chain.writable_len) == (16, 512)
    assert ring.gather(chain, 4) == b"0123"
    assert ring.scatter(chain, b"x" * 600) == 512
    assert ring.in_flight == (head,)
    ring.push(head, 512)
    assert driver.reap() == [(head, 512)]
    assert ring.pop() is None
    assert not ring.in_flight


def test_indices_wrap_at_65536() -> None:
    driver, ring = rig(event_idx=True)
    for _ in range(65536 // 4 + 3):
        for _ in range(4):
            driver.add([OUT, IN])
        assert answer_all(ring) == 4
        assert ring.should_signal()
        assert len(driver.reap()) == 4
    assert ring.native.next_used == 12


def test_what_was_given_back_is_popped_again() -> None:
    driver, ring = rig()
    driver.add([OUT])
    driver.add([IN])
    first = ring.pop()
    assert first is not None
    ring.undo_pop(first)
    assert ring.in_flight == ()
    assert ring.pop() == first
    assert answer_all(ring) == 1


def test_empty_chain_is_a_chain() -> None:
    driver, ring = rig()
    driver.add([Buffer(0x8000, 0)])
    chain = ring.pop()
    assert chain is not None
    assert chain.readable_len + chain.writable_len == 0


def loop(driver: Driver) -> None:
    driver.poke_desc(0, OUT, NEXT, 1)
    driver.poke_desc(1, OUT, NEXT, 0)
    driver.offer(0)


def next_outside(driver: Driver) -> None:
    driver.poke_desc(0, OUT, NEXT, 8)
    driver.offer(0)


def indirect(driver: Driver) -> None:
    driver.poke_desc(0, OUT, INDIRECT, 0)
    driver.offer(0)


def outside_memory(driver: Driver) -> None:
    driver.add([Buffer(0x1FFFF, 2)])


def far_outside(driver: Driver) -> None:
    driver.add([Buffer((1 << 64) - 1, 2)])


def readable_last(driver: Driver) -> None:
    driver.add([IN, OUT])


def head_outside(driver: Driver) -> None:
    driver.offer(8)


def jump(driver: Driver) -> None:
    driver.poke_avail_idx(9)


def backwards(driver: Driver) -> None:
    driver.poke_avail_idx(-1)


def twice(driver: Driver) -> None:
    driver.offer(driver.add([OUT]))


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (loop, "descriptor chain loops"),
        (next_outside, "next descriptor is outside the table"),
        (indirect, "indirect descriptor, which was not offered"),
        (outside_memory, "buffer is not in guest memory"),
        (far_outside, "buffer is not in guest memory"),
        (readable_last, "readable descriptor after a writable one"),
        (head_outside, "head is outside the table"),
        (jump, "available index is more than the queue ahead"),
        (backwards, "available index is more than the queue ahead"),
        (twice, "head is offered while in flight"),
    ],
)
def test_each_broken_rule_is_named_and_final(
    break_it: Callable[[Driver], None], fault: str
) -> None:
    driver, ring = rig()
    break_it(driver)
    popped = [ring.pop()] if break_it is twice else []
    with pytest.raises(GuestError, match=fault):
        ring.pop()
    assert ring.broken
    assert not ring.pending()
    assert not ring.arm_kicks()
    with pytest.raises(GuestError, match=fault):
        ring.pop()
    for chain in popped:
        assert chain is not None
        ring.push(chain.head, 0)
    assert driver.used_index() == len(popped)
    ring.reset()
    assert ring.pop() is None
    assert ring.fault == ""


def test_chain_of_four_gib_is_refused() -> None:
    memory = guest_memory()
    memory.native.region[0].size = 1 << 32  # nothing beyond the real part is touched
    ring = Ring(memory)
    ring.configure(8, LAYOUT.desc, LAYOUT.avail, LAYOUT.used, event_idx=False)
    driver = Driver(memory, LAYOUT)
    driver.add([Buffer(0, 1 << 31), Buffer(0, (1 << 31) - 1, writable=True)])
    assert ring.pop() is not None
    driver.add([Buffer(0, 1 << 31), Buffer(0, 1 << 31, writable=True)])
    with pytest.raises(GuestError, match="4 GiB"):
        ring.pop()


def test_chain_across_two_regions_is_refused() -> None:
    memory = GuestMemory(
        [Region(0, bytearray(0x10000)), Region(0x10000, bytearray(0x1000))]
    )
    ring = Ring(memory)
    ring.configure(8, LAYOUT.desc, LAYOUT.avail, LAYOUT.used, event_idx=False)
    Driver(memory, LAYOUT).add([Buffer(0xFFFF, 2)])
    with pytest.raises(GuestError, match="not in guest memory"):
        ring.pop()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"size": 7}, "power of two"),
        ({"size": 512}, "power of two"),
        ({"desc": 0x1008}, "descriptor table"),
        ({"desc": 0x1FFF0}, "descriptor table"),
        ({"avail": 0x1001}, "available ring"),
        ({"avail": 0x1FFFE}, "available ring"),
        ({"used": 0x1002}, "used ring"),
        ({"used": (1 << 64) - 4}, "used ring"),
    ],
)
def test_a_ring_that_is_not_in_memory_stays_off(
    change: dict[str, int], fault: str
) -> None:
    ring = Ring(guest_memory())
    ring.native.size, ring.native.desc = LAYOUT.size, LAYOUT.desc
    ring.native.avail, ring.native.used = LAYOUT.avail, LAYOUT.used
    for name, value in change.items():
        setattr(ring.native, name, value)
    assert lib.ring_enable(ring.native) == -1
    assert fault in ring.fault
    assert not ring.ready


def test_push_of_a_head_not_in_flight_changes_only_the_count() -> None:
    driver, ring = rig()
    head = driver.add([IN])
    assert ring.pop() is not None
    before = driver.memory.read(0, 0x20000)
    ring.push(head + 1, 1)
    ring.push(300, 1)
    assert driver.memory.read(0, 0x20000) == before
    ring.push(head, 1)
    ring.push(head, 1)
    assert driver.reap() == [(head, 1)]
    assert ring.native.stale == 3


def test_an_answer_after_a_reset_is_ignored() -> None:
    driver, ring = rig()
    head = driver.add([IN])
    assert ring.pop() is not None
    epoch = ring.epoch
    ring.reset()
    assert ring.epoch == epoch + 1
    ring.push(head, 1)
    assert driver.used_index() == 0


def test_event_idx_asks_for_one_interrupt() -> None:
    driver, ring = rig(event_idx=True)
    assert not ring.should_signal()
    driver.add([IN])
    answer_all(ring)
    assert ring.should_signal()
    assert not ring.should_signal()
    driver.add([IN])
    answer_all(ring)
    assert not ring.should_signal()  # used_event is still 0: not asked for
    driver.reap()
    driver.want_interrupt_at(3)
    driver.add([IN])
    answer_all(ring)
    assert not ring.should_signal()
    driver.add([IN])
    answer_all(ring)
    assert ring.should_signal()


def test_flags_ask_for_interrupts() -> None:
    driver, ring = rig()
    driver.want_interrupts(False)
    driver.add([IN])
    answer_all(ring)
    assert not ring.should_signal()
    driver.want_interrupts(True)
    assert not ring.should_signal()
    driver.add([IN])
    answer_all(ring)
    assert ring.should_signal()


@pytest.mark.parametrize("event_idx", [False, True])
def test_kicks_are_off_while_the_device_looks(event_idx: bool) -> None:
    driver, ring = rig(event_idx=event_idx)
    for _ in range(20000):
        ring.suppress_kicks()
        driver.add([IN])
        assert not driver.kick_due()
        assert answer_all(ring) == 1
        driver.reap()
    assert not ring.arm_kicks()
    driver.add([IN])
    assert driver.kick_due()
    assert ring.arm_kicks()


def test_host_writes_mark_their_pages() -> None:
    memory = guest_memory()
    layout = RingLayout(0x1000, 0x2000, 0x4FF8, 8)  # entries cross into page 5
    ring = Ring(memory)
    ring.configure(8, layout.desc, layout.avail, layout.used, event_idx=False)
    driver = Driver(memory, layout)
    driver.add([Buffer(0x9FFF, 2, writable=True), Buffer(0xB000, 9, writable=True)])
    memory.clear_dirty()
    chain = ffi.new("struct ring_chain *")
    assert lib.ring_pop(ring.native, chain) == lib.RING_CHAIN
    assert pages(memory) == set()
    lib.ring_mark_written(ring.native, chain, 2)
    assert pages(memory) == {0x9, 0xA}
    lib.ring_mark_written(ring.native, chain, 3)
    assert pages(memory) == {0x9, 0xA, 0xB}
    memory.clear_dirty()
    ring.push(chain.head, 3)
    assert pages(memory) == {4, 5}
    memory.clear_dirty()
    ring.suppress_kicks()
    assert pages(memory) == {4}


def pages(memory: GuestMemory) -> set[int]:
    """The numbers of the pages that the host wrote."""
    bits = int.from_bytes(memory.dirty_bitmaps()[0], "little")
    return {page for page in range(bits.bit_length()) if bits >> page & 1}


def test_interrupt_status_is_set() -> None:
    page = RegisterPage()
    line = ffi.new("struct irq_line *", {"page": page.native, "fd": -1})
    lib.irq_raise(line, 1)
    lib.irq_raise(line, 2)
    assert page.load(0x60, 4) == 3
    assert line.raised == 2


def test_save_and_restore_keep_everything() -> None:
    driver, ring = rig(event_idx=True)
    held = driver.add([IN])
    assert ring.pop() is not None
    answered = driver.add([OUT])
    answer_all(ring)
    ring.should_signal()
    state = ring.save()
    assert state.in_flight == (held,)
    twin = Ring(driver.memory)
    twin.restore(state)
    assert twin.save() == state
    twin.push(held, 1)
    assert [entry[0] for entry in driver.reap()] == [answered, held]


def test_a_broken_ring_is_restored_broken() -> None:
    driver, ring = rig()
    jump(driver)
    with pytest.raises(GuestError):
        ring.pop()
    twin = Ring(driver.memory)
    twin.restore(ring.save())
    with pytest.raises(GuestError, match="when it was saved"):
        twin.pop()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("next_avail", 0x10000),
        ("next_used", -1),
        ("signalled_used", 0x10000),
        ("desc", 1 << 64),
        ("size", 257),
        ("in_flight", (8,)),
        ("in_flight", (1, 1)),
        ("in_flight", (1,)),
        ("next_avail", 3),
    ],
)
def test_a_hostile_record_is_refused(field: str, value: int | tuple[int, ...]) -> None:
    good = RingState(size=8, desc=0x1000, avail=0x2000, used=0x3000)
    with pytest.raises(SnapshotError, match=r"^ring: "):
        dataclasses.replace(good, **{field: value})  # type: ignore[arg-type]  # wrong on purpose
