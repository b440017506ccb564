"""The UART register by register, and whatever a guest may do to it."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.guest_port import GuestPort, shadows_differ
from vmmd.bus import Access
from vmmd.chips.serial import (
    FCR,
    FIFO_CAPACITY,
    IER,
    IIR,
    LCR,
    LSR,
    MCR,
    MSR,
    OUTPUT_CAPACITY,
    RBR,
    SCR,
    THR,
    Serial,
    SerialState,
)

RDI, THRI, RLSI = 1, 2, 4
NO_INT = 1

byte = st.integers(0, 255)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 8), st.sampled_from([1, 2, 4, 8])),
        st.tuples(
            st.just("write"),
            st.integers(0, 8),
            st.sampled_from([1, 1, 1, 2, 4, 8]),
            st.one_of(byte, st.integers(0, 1 << 64)),
        ),
        st.tuples(st.just("receive"), st.binary(max_size=80)),
        st.tuples(st.just("interrupt")),
        st.tuples(st.just("output")),
    ),
    max_size=40,
)
states = st.builds(
    SerialState,
    baud_divisor_low=byte,
    baud_divisor_high=byte,
    interrupt_enable=st.integers(0, 15),
    fifo_control=st.sampled_from([0, 1, 0x81, 0xC1]),
    line_control=byte,
    modem_control=st.integers(0, 31),
    scratch=byte,
    overrun=st.booleans(),
    transmitter_interrupt=st.booleans(),
    in_buffer=st.binary(max_size=FIFO_CAPACITY),
)


def do(serial: Serial, operation: tuple[object, ...]) -> object:
    match operation:
        case ("read", int(offset), int(size)):
            return serial.read(offset, size)
        case ("write", int(offset), int(size), int(value)):
            serial.write(offset, size, value)
            return None
        case ("receive", bytes(data)):
            return serial.receive(data)
        case ("interrupt",):
            return serial.take_interrupt()
    return serial.take_output()


# -- Register by register ------------------------------------------------------


def test_loopback_returns_what_is_sent_and_shows_an_overrun() -> None:
    serial = Serial()
    port = GuestPort(serial)
    port.outb(MCR, 0x1F)
    assert serial.rules_changed
    assert port.inb(MSR) == 0xF0
    assert serial.room() == serial.receive(b"x") == 0
    for value in range(FIFO_CAPACITY + 1):
        port.outb(THR, value)
    assert port.inb(LSR) == 0x63
    assert port.inb(LSR) == 0x61
    assert [port.inb(RBR) for _ in range(FIFO_CAPACITY)] == list(range(FIFO_CAPACITY))
    assert serial.take_output() == b""
    assert serial.statistics().overrun_count == 1


def test_the_divisor_latch_hides_data_and_enables() -> None:
    serial = Serial()
    port = GuestPort(serial)
    port.outb(IER, 5)
    port.outb(LCR, 0x83)
    assert {rule.offset for rule in serial.rules}.isdisjoint({0, 1})
    port.outb(0, 1)
    port.outb(1, 2)
    assert (port.inb(0), port.inb(1)) == (1, 2)
    port.outb(LCR, 3)
    assert serial.rules_changed
    assert port.inb(IER) == 5
    assert (serial.save().baud_divisor_low, serial.save().baud_divisor_high) == (1, 2)
    assert serial.take_output() == b""


def test_rules_change_only_when_they_differ() -> None:
    serial = Serial()
    assert not serial.rules_changed
    serial.write(LCR, 1, 0x1B)
    serial.write(MCR, 1, 0x0B)
    assert not serial.rules_changed


@pytest.mark.parametrize("value", [0, 0x81, 0x83])
def test_turning_the_fifo_off_or_clearing_it_forgets_input(value: int) -> None:
    serial = Serial(SerialState(fifo_control=1, in_buffer=b"abc"))
    serial.write(FCR, 1, value)
    kept = b"abc" if value == 0x81 else b""
    assert serial.save().in_buffer == kept
    assert serial.page.load(LSR, 1) & 1 == bool(kept)
    assert serial.read(IIR, 1) >> 6 == (3 if value & 1 else 0)


def test_reading_the_identity_takes_back_the_transmitters_interrupt() -> None:
    serial = Serial(SerialState(interrupt_enable=THRI))
    serial.write(THR, 1, 65)
    assert serial.take_interrupt()
    assert [serial.read(IIR, 1) for _ in range(2)] == [2, 1]
    serial.write(THR, 1, 66)
    assert serial.take_interrupt()
    assert serial.take_output() == b"AB"


def test_causes_come_in_the_order_of_their_urgency() -> None:
    state = SerialState(
        interrupt_enable=7, in_buffer=b"x", overrun=True, transmitter_interrupt=True
    )
    serial = Serial(state)
    seen = [serial.read(IIR, 1)]
    serial.read(LSR, 1)
    seen.append(serial.read(IIR, 1))
    serial.read(RBR, 1)
    seen += [serial.read(IIR, 1), serial.read(IIR, 1)]
    assert seen == [6, 4, 2, 1]


def test_input_is_bounded() -> None:
    serial = Serial()
    assert serial.receive(bytes(100)) == FIFO_CAPACITY
    assert serial.room() == 0
    serial.read(RBR, 1)
    assert serial.room() == 1


def test_output_nobody_takes_is_bounded_and_counted() -> None:
    serial = Serial()
    for _ in range(OUTPUT_CAPACITY + 3):
        serial.write(THR, 1, 46)
    assert len(serial.take_output()) == OUTPUT_CAPACITY
    assert serial.statistics().dropped_count == 3
    assert serial.statistics().write_count == OUTPUT_CAPACITY + 3


def test_a_wide_write_reaches_the_neighbours_and_the_page() -> None:
    serial = Serial()
    serial.write(THR, 2, 0xFF41)
    assert serial.take_output() == b"A"
    assert serial.page.load(IER, 1) == 0x0F
    assert serial.read(IER, 2) == 0x020F


# -- Whatever a guest may do ---------------------------------------------------


@given(state=states, ops=operations)
def test_no_access_raises_and_the_page_is_true(
    state: SerialState, ops: list[tuple[object, ...]]
) -> None:
    serial = Serial.restore(state)
    port = GuestPort(serial)
    for op in ops:
        match op:
            case ("write", int(offset), 1, int(value)):
                port.outb(offset, value)
                port.drain()
            case _:
                do(serial, op)
                port.rules = serial.rules
        assert not shadows_differ(serial, Serial.restore(serial.save()))
        assert 0 <= serial.room() <= FIFO_CAPACITY


@given(state=states, first=operations, second=operations)
def test_a_saved_twin_behaves_alike(
    state: SerialState,
    first: list[tuple[object, ...]],
    second: list[tuple[object, ...]],
) -> None:
    one = Serial.restore(state)
    for op in first:
        do(one, op)
    one.take_output()
    two = Serial.restore(one.save())
    one.take_interrupt()
    two.take_interrupt()
    assert one.rules is two.rules
    for op in second:
        assert do(one, op) == do(two, op)
    assert one.save() == two.save()


@given(state=states)
def test_a_record_restores_to_itself(state: SerialState) -> None:
    saved = Serial.restore(state).save()
    assert Serial.restore(saved).save() == saved
    assert SerialState(**asdict(saved)) == saved
    assert replace(saved, fifo_control=0) == replace(state, fifo_control=0)


@given(state=states)
def test_a_pending_interrupt_is_raised_again_after_a_restore(
    state: SerialState,
) -> None:
    serial = Serial.restore(state)
    pending = serial.read(IIR, 1) & 0x0F != NO_INT
    assert Serial.restore(state).take_interrupt() == pending


@given(values=st.lists(st.tuples(st.sampled_from([THR, IER, SCR]), byte), max_size=60))
def test_posting_late_gives_what_posting_at_once_gives(
    values: list[tuple[int, int]],
) -> None:
    late, early = Serial(), Serial()
    lazy, eager = GuestPort(late), GuestPort(early)
    for offset, value in values:
        lazy.outb(offset, value)
        eager.outb(offset, value)
        eager.drain()
        for readable in (IER, LCR, MCR, LSR, MSR, SCR):
            assert lazy.inb(readable) == eager.inb(readable)
    lazy.drain()
    assert late.take_output() == early.take_output()
    assert late.save() == early.save()


def test_only_single_bytes_have_rules() -> None:
    for rule in Serial().rules:
        assert rule.size == 1
        assert rule.write is (rule.access is not Access.SHADOW)
