"""The keyboard controller: reset, Ctrl-Alt-Del, and what drivers probe for.

One keyboard, no mouse. Every command that has an answer is answered at once: a
Linux driver waits half a second for one that is not. Scan codes are set 2 as the
keyboard sends them, translated to set 1 if the guest has that turned on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vmmd.bus import Access, RegisterPage, Rule
from vmmd.frozen import dataclass
from vmmd.state.record import U8, Length, record

if TYPE_CHECKING:
    from typing import Self

LENGTH = 5  # ports
DATA = 0
STATUS = COMMAND = 4
BUFFER_SIZE = 16

STATUS_OBF, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED = 0x01, 0x04, 0x08, 0x10
CTR_KBDINT, CTR_SYSTEM, CTR_KBDDIS, CTR_AUXDIS, CTR_XLATE = 0x01, 0x04, 0x10, 0x20, 0x40

READ_CTR, WRITE_CTR = 0x20, 0x60
AUX_DISABLE, AUX_ENABLE, AUX_TEST = 0xA7, 0xA8, 0xA9
SELF_TEST, KBD_TEST, KBD_DISABLE, KBD_ENABLE = 0xAA, 0xAB, 0xAD, 0xAE
READ_INPUT, READ_OUTPUT, WRITE_OUTPUT = 0xC0, 0xD0, 0xD1
KBD_LOOP, AUX_LOOP, AUX_SEND = 0xD2, 0xD3, 0xD4
PULSE, PULSE_NO_RESET = 0xF0, 0x01

# The output port: bit 0 is the reset line (low resets), bit 1 the A20 gate.
OUTPUT_NO_RESET, OUTPUT_A20, OUTPUT_KBD_FULL = 0x01, 0x02, 0x10

ACK = 0xFA
_KEYBOARD_ANSWERS = {
    0xEE: b"\xee",  # echo
    0xF2: b"\xfa\xab\x83",  # identify: a keyboard with set 2
    0xFF: b"\xfa\xaa",  # reset and self-test
}
_KEYBOARD_ARGUMENTS = (0xED, 0xF0, 0xF3)  # lights, scan code set, repeat rate
_GET_SCAN_CODE_SET = 0xF0

CTRL_ALT_DEL = b"\x14\x11\xe0\x71"
_TO_SET_1 = {0x14: 0x1D, 0x11: 0x38, 0x71: 0x53}

# Commands that only change the control register: (bits to clear, bits to set).
_CTR_CHANGES = {
    AUX_DISABLE: (0, CTR_AUXDIS),
    AUX_ENABLE: (CTR_AUXDIS, 0),
    KBD_DISABLE: (0, CTR_KBDDIS),
    KBD_ENABLE: (CTR_KBDDIS, 0),
}
_WITH_ARGUMENT = (WRITE_OUTPUT, KBD_LOOP, AUX_LOOP, AUX_SEND)


@dataclass(frozen=True, slots=True)
class I8042Statistics:
    """Counters: accesses, resets asked for, bytes that found the buffer full."""

    read_count: int
    write_count: int
    reset_count: int
    overflow_count: int


class I8042:
    """The controller. Offsets count from port 0x60: data 0, status and command 4."""

    rules = (Rule(STATUS, 1, write=False, access=Access.SHADOW),)

    def __init__(self, state: I8042State | None = None) -> None:
        state = state or I8042State()
        self.page = RegisterPage()
        self._control = state.control & 0xFF
        self._output = state.output_port & 0xFF
        self._command = state.pending_command
        self._keyboard = state.keyboard_command
        self._last_was_command = state.last_was_command
        self._buffer = bytearray(state.buffer[:BUFFER_SIZE])
        self._edge = bool(self._buffer) and bool(self._control & CTR_KBDINT)
        self._reset = False
        self._reads = self._writes = self._resets = self._overflows = 0
        self._update()

    @classmethod
    def restore(cls, state: I8042State) -> Self:
        """A controller as it was saved; it interrupts again for a waiting byte."""
        return cls(state)

    def read(self, offset: int, size: int) -> int:
        """Answer a read; only single bytes have an answer."""
        self._reads += 1
        match offset, size:
            case 0, 1:
                return self._pop()
            case 4, 1:
                return self.page.load(STATUS, 1)
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write; only single bytes have an effect."""
        self._writes += 1
        match offset, size:
            case 0, 1:
                self._last_was_command = False
                self._take_data(value & 0xFF)
            case 4, 1:
                self._last_was_command = True
                self._take_command(value & 0xFF)
        self._update()

    def ctrl_alt_del(self) -> bool:
        """Press Ctrl, Alt and Del. False, and nothing pressed, if there is no room."""
        if len(self._buffer) + len(CTRL_ALT_DEL) > BUFFER_SIZE:
            return False
        keys = CTRL_ALT_DEL
        if self._control & CTR_XLATE:
            keys = bytes(_TO_SET_1.get(key, key) for key in keys)
        self._push(keys)
        self._update()
        return True

    def take_interrupt(self) -> bool:
        """Whether to signal the (edge) interrupt line, once, since the last call."""
        edge, self._edge = self._edge, False
        return edge

    def take_reset(self) -> bool:
        """Whether the guest has asked for a reset since the last call."""
        reset, self._reset = self._reset, False
        return reset

    def statistics(self) -> I8042Statistics:
        """Counters, for the metrics."""
        return I8042Statistics(
            read_count=self._reads,
            write_count=self._writes,
            reset_count=self._resets,
            overflow_count=self._overflows,
        )

    def save(self) -> I8042State:
        """The record. A reset that was asked for must have been taken."""
        return I8042State(
            control=self._control,
            output_port=self._output,
            pending_command=self._command,
            keyboard_command=self._keyboard,
            last_was_command=self._last_was_command,
            buffer=bytes(self._buffer),
        )

    def _take_command(self, command: int) -> None:
        self._command = 0
        if command in _CTR_CHANGES:
            clear, mark = _CTR_CHANGES[command]
            self._control = self._control & ~clear | mark
        elif command & 0xF0 == PULSE:
            if not command & PULSE_NO_RESET:
                self._ask_reset()
        elif command in _WITH_ARGUMENT or WRITE_CTR <= command < WRITE_CTR + 0x20:
            self._command = command
        else:
            self._answer(command)

    def _answer(self, command: int) -> None:
        answers = {
            READ_CTR: self._control,
            AUX_TEST: 0x01,  # the mouse's clock line is stuck: there is none
            SELF_TEST: 0x55,
            KBD_TEST: 0x00,
            READ_INPUT: 0x80,
            READ_OUTPUT: self._output | OUTPUT_KBD_FULL * bool(self._buffer),
        }
        if command == SELF_TEST:
            self._control |= CTR_SYSTEM
        if command in answers:
            self._push(bytes((answers[command],)))
        elif READ_CTR < command < READ_CTR + 0x20:
            self._push(b"\0")  # the rest of the controller's memory

    def _take_data(self, value: int) -> None:
        command, self._command = self._command, 0
        match command:
            case 0:
                self._take_keyboard(value)
            case 0x60:
                self._control = value
            case 0xD1:
                self._output = value
                if not value & OUTPUT_NO_RESET:
                    self._ask_reset()
            case 0xD2 | 0xD3:
                self._push(bytes((value,)))

    def _take_keyboard(self, value: int) -> None:
        """A byte for the keyboard: a command, or the argument of the last one."""
        command, self._keyboard = self._keyboard, 0
        if command:
            asked = command == _GET_SCAN_CODE_SET and value == 0
            self._push(b"\xfa\x02" if asked else b"\xfa")
            return
        if value in _KEYBOARD_ARGUMENTS:
            self._keyboard = value
        self._push(_KEYBOARD_ANSWERS.get(value, bytes((ACK,))))

    def _push(self, data: bytes) -> None:
        taken = data[: BUFFER_SIZE - len(self._buffer)]
        self._overflows += len(data) - len(taken)
        self._buffer += taken
        if taken and self._control & CTR_KBDINT:
            self._edge = True

    def _pop(self) -> int:
        if not self._buffer:
            return 0
        value = self._buffer.pop(0)
        if self._buffer and self._control & CTR_KBDINT:
            self._edge = True
        self._update()
        return value

    def _ask_reset(self) -> None:
        self._resets += 1
        self._reset = True

    def _update(self) -> None:
        status = (
            STATUS_UNLOCKED
            | STATUS_OBF * bool(self._buffer)
            | STATUS_COMMAND * self._last_was_command
            | self._control & STATUS_SYSTEM
        )
        self.page.store(STATUS, 1, status)


@record("i8042", 1)
class I8042State:
    """The controller's registers; 0 stands for no pending command."""

    control: U8 = CTR_SYSTEM | CTR_KBDINT
    output_port: U8 = OUTPUT_NO_RESET | OUTPUT_A20
    pending_command: U8 = 0
    keyboard_command: U8 = 0
    last_was_command: bool = False
    buffer: Annotated[bytes, Length(0, BUFFER_SIZE)] = b""
