"""The keyboard controller as Linux's drivers meet it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.guest_port import GuestPort, shadows_differ
from vmmd.chips.i8042 import CTRL_ALT_DEL, I8042, I8042State

OBF = 1
byte = st.integers(0, 255)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 5), st.sampled_from([1, 1, 2, 4])),
        st.tuples(
            st.just("write"),
            st.sampled_from([0, 4, 0, 4, 1, 7]),
            st.sampled_from([1, 1, 1, 2, 4]),
            st.one_of(byte, st.sampled_from([0x60, 0xD1, 0xD2, 0xFE, 0xF0, 0xED])),
        ),
        st.tuples(st.just("keys")),
        st.tuples(st.just("interrupt")),
        st.tuples(st.just("reset")),
    ),
    max_size=40,
)
states = st.builds(
    I8042State,
    control=byte,
    output_port=byte,
    pending_command=st.sampled_from([0, 0x60, 0xD1, 0xD2]),
    keyboard_command=st.sampled_from([0, 0xED, 0xF0]),
    last_was_command=st.booleans(),
    buffer=st.binary(max_size=16),
)


def do(chip: I8042, operation: tuple[object, ...]) -> object:
    match operation:
        case ("read", int(offset), int(size)):
            return chip.read(offset, size)
        case ("write", int(offset), int(size), int(value)):
            chip.write(offset, size, value)
            return None
        case ("keys",):
            return chip.ctrl_alt_del()
        case ("interrupt",):
            return chip.take_interrupt()
    return chip.take_reset()


class Driver:
    """drivers/input/serio/i8042.c in short; no answer is a failure at once."""

    def __init__(self, chip: I8042) -> None:
        self.port = GuestPort(chip)

    def flush(self) -> bytes:
        got = bytearray()
        while self.port.inb(4) & OBF:
            got.append(self.port.inb(0))
        return bytes(got)

    def command(self, command: int, *arguments: int) -> int:
        self.port.outb(4, command)
        for argument in arguments:
            self.port.outb(0, argument)
        assert self.port.inb(4) & OBF, "Linux would now wait for half a second"
        return self.port.inb(0)

    def keyboard(self, *values: int) -> bytes:
        for value in values:
            self.port.outb(0, value)
        return self.flush()


@pytest.fixture
def chip() -> I8042:
    return I8042()


def test_linux_initialises_the_controller(chip: I8042) -> None:
    driver = Driver(chip)
    assert driver.flush() == b""
    assert driver.port.inb(4) & 0x10, "or Linux warns of a key lock"
    first, second = driver.command(0x20), driver.command(0x20)
    assert first == second == 0x05
    driver.port.outb(4, 0x60)
    driver.port.outb(0, (first | 0x10) & ~0x01)
    assert driver.command(0x20) == 0x14
    assert driver.command(0xAA) == 0x55
    assert driver.command(0xAB) == 0x00
    for command, control in ((0xA7, 0x34), (0xA8, 0x14), (0xAE, 0x04), (0xAD, 0x14)):
        driver.port.outb(4, command)
        assert driver.command(0x20) == control


def test_linux_finds_no_mouse_and_does_not_wait_for_one(chip: I8042) -> None:
    driver = Driver(chip)
    assert driver.command(0xD3, 0x5A) == 0x5A
    assert not driver.port.inb(4) & 0x20, "data from a mouse"
    assert driver.command(0xA9) not in (0, 0xFA, 0xFF)


def test_linux_finds_a_keyboard(chip: I8042) -> None:
    driver = Driver(chip)
    assert driver.keyboard(0xF2) == b"\xfa\xab\x83"
    assert driver.keyboard(0xED, 0) == b"\xfa\xfa"
    assert driver.keyboard(0xF0, 2) == b"\xfa\xfa"
    assert driver.keyboard(0xF0, 0) == b"\xfa\xfa\x02"
    assert driver.keyboard(0xF3, 0) == b"\xfa\xfa"
    assert driver.keyboard(0xF4) == b"\xfa"
    assert driver.keyboard(0xEE) == b"\xee"
    assert driver.keyboard(0xFF) == b"\xfa\xaa"


def test_ctrl_alt_del_comes_byte_by_byte_with_an_interrupt_each(chip: I8042) -> None:
    assert chip.ctrl_alt_del()
    got = bytearray()
    while chip.take_interrupt():
        assert chip.page.load(4, 1) & OBF
        got.append(chip.read(0, 1))
    assert got == CTRL_ALT_DEL == b"\x14\x11\xe0\x71"
    assert not chip.page.load(4, 1) & OBF


def test_ctrl_alt_del_is_translated_where_the_guest_asked_for_it() -> None:
    chip = I8042(I8042State(control=0x45))
    assert chip.ctrl_alt_del()
    assert Driver(chip).flush() == b"\x1d\x38\xe0\x53"


def test_ctrl_alt_del_without_room_presses_nothing(chip: I8042) -> None:
    assert [chip.ctrl_alt_del() for _ in range(5)] == [True] * 4 + [False]
    assert Driver(chip).flush() == CTRL_ALT_DEL * 4


def test_interrupts_can_be_turned_off(chip: I8042) -> None:
    chip.write(4, 1, 0x60)
    chip.write(0, 1, 0x04)
    chip.ctrl_alt_del()
    assert not chip.take_interrupt()


@pytest.mark.parametrize("value", [0xFE, 0xF0, 0xFC])
def test_reset_by_pulse(chip: I8042, value: int) -> None:
    chip.write(4, 1, value)
    assert [chip.take_reset(), chip.take_reset()] == [True, False]
    assert chip.statistics().reset_count == 1


@pytest.mark.parametrize(("value", "asked"), [(0xFF, False), (0xEE, False), (0, False)])
def test_no_reset_by_anything_else(chip: I8042, value: int, asked: bool) -> None:
    chip.write(4, 1, value)
    assert chip.take_reset() is asked


@pytest.mark.parametrize(("value", "asked"), [(0xDE, True), (0xDF, False)])
def test_reset_by_the_output_port(chip: I8042, value: int, asked: bool) -> None:
    chip.write(4, 1, 0xD1)
    chip.write(0, 1, value)
    assert chip.take_reset() is asked
    assert Driver(chip).command(0xD0) == value


def test_a_full_buffer_drops_and_counts(chip: I8042) -> None:
    for _ in range(17):
        chip.write(4, 1, 0xAB)
    assert chip.statistics().overflow_count == 1
    assert len(Driver(chip).flush()) == 16


def test_ports_of_others_read_as_ones(chip: I8042) -> None:
    assert (chip.read(1, 1), chip.read(0, 2), chip.read(0, 1)) == (0xFF, 0xFFFF, 0)


@given(state=states, ops=operations)
def test_no_access_raises_and_the_page_is_true(
    state: I8042State, ops: list[tuple[object, ...]]
) -> None:
    chip = I8042.restore(state)
    for op in ops:
        do(chip, op)
        assert not shadows_differ(chip, I8042.restore(chip.save()))
        assert len(chip.save().buffer) <= 16


@given(state=states, first=operations, second=operations)
def test_a_saved_twin_behaves_alike(
    state: I8042State,
    first: list[tuple[object, ...]],
    second: list[tuple[object, ...]],
) -> None:
    one = I8042.restore(state)
    for op in first:
        do(one, op)
    one.take_reset()
    two = I8042.restore(one.save())
    one.take_interrupt()
    two.take_interrupt()
    for op in second:
        assert do(one, op) == do(two, op)
    assert one.save() == two.save()


@given(state=states)
def test_a_record_restores_to_itself_and_interrupts_again(state: I8042State) -> None:
    chip = I8042.restore(state)
    assert chip.save() == state
    assert chip.take_interrupt() == (bool(state.buffer) and state.control & 1 == 1)
