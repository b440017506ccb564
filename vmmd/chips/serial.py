"""A 16550A UART: registers and FIFOs; no port, no interrupt number, no fd.

What goes out is collected until :meth:`Serial.take_output`; what comes in waits,
64 bytes of it, until the guest reads it. The line has no speed: a byte is sent
as soon as it is written, so the transmitter is always empty and its registers
can be served from the page: line status and interrupt enables cost the guest no
round trip, and output is posted.

After the write that made it so, ``rules_changed`` is true: while the divisor
latch or the loopback is on, nothing is posted and the loop must serve the window
by the new ``rules`` before it answers.

Simplifications that no driver can see on a console: modem lines never change, so
no delta bit is ever set; any received byte interrupts at once, as if the trigger
level was 1; parity, stop bits, break and the divisor are kept and mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vmmd.bus import Access, RegisterPage, Rule
from vmmd.frozen import dataclass
from vmmd.state.record import U8, Length, record

if TYPE_CHECKING:
    from typing import Self

FIFO_CAPACITY = 64
OUTPUT_CAPACITY = 64 * 1024
LENGTH = 8  # ports

# Registers by offset; the divisor latch hides the first two.
RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7

IER_RDI, IER_THRI, IER_RLSI, IER_MASK = 0x01, 0x02, 0x04, 0x0F
IIR_NO_INT, IIR_THRI, IIR_RDI, IIR_RLSI, IIR_FIFO = 0x01, 0x02, 0x04, 0x06, 0xC0
FCR_ENABLE, FCR_CLEAR_RCVR, FCR_TRIGGER = 0x01, 0x02, 0xC0
LCR_8N1, LCR_DLAB = 0x03, 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP, MCR_MASK = 1, 2, 4, 8, 0x10, 0x1F
LSR_DR, LSR_OE, LSR_IDLE = 0x01, 0x02, 0x60  # THRE and TEMT: always idle
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
# In loopback the four outputs come back as the four inputs.
_LOOPED = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI))
LOOPED = (*_LOOPED, (MCR_OUT2, MSR_DCD))

_PLAIN_RULES = (
    *(Rule(offset, 1, write=False, access=Access.SHADOW) for offset in (LCR, MCR, SCR)),
    Rule(SCR, 1, write=True, access=Access.STORED, mask=0xFF),
)
# A console writes its enables twice a line and reads them back at once.
_QUICK_RULES = (
    Rule(LSR, 1, write=False, access=Access.SHADOW),
    Rule(THR, 1, write=True, access=Access.POSTED),
    Rule(IER, 1, write=False, access=Access.SHADOW),
    Rule(IER, 1, write=True, access=Access.STORED_POSTED, mask=IER_MASK),
    Rule(MSR, 1, write=False, access=Access.SHADOW),
    *_PLAIN_RULES,
)


@dataclass(frozen=True, slots=True)
class SerialStatistics:
    """Bytes since the device was made; ``dropped``: output nobody took in time."""

    read_count: int
    write_count: int
    dropped_count: int
    overrun_count: int


class Serial:
    """The UART. ``page`` and ``rules`` are its window's (see vmmd/bus.py)."""

    def __init__(self, state: SerialState | None = None) -> None:
        state = state or SerialState()
        self.page = RegisterPage()
        self._divisor = [state.baud_divisor_low, state.baud_divisor_high]
        self._ier = state.interrupt_enable & IER_MASK
        self._fcr = state.fifo_control & (FCR_ENABLE | FCR_TRIGGER)
        self._lcr = state.line_control & 0xFF
        self._mcr = state.modem_control & MCR_MASK
        self._overrun = state.overrun
        self._thri = state.transmitter_interrupt
        self._in = bytearray(state.in_buffer[:FIFO_CAPACITY])
        self._out = bytearray()
        self._read = self._written = self._dropped = self._overruns = 0
        self._causes = 0
        self._edge = False
        self.page.store(SCR, 1, state.scratch & 0xFF)
        self.page.store(IER, 1, self._ier)
        self.rules = self._rules()
        self.rules_changed = False
        self._update()

    @classmethod
    def restore(cls, state: SerialState) -> Self:
        """A UART as it was saved; it interrupts again for what was pending."""
        return cls(state)

    # -- The guest's side ------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Answer a read; a wide one takes neighbouring registers, low first."""
        value = 0
        for i in range(size):
            value |= self._read_byte(offset + i) << 8 * i
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write, posted or not; a wide one goes to neighbours, low first."""
        for i in range(size):
            self._write_byte(offset + i, value >> 8 * i & 0xFF)
        if size > 1:  # never posted, so the page does not hold it yet
            self.page.store(IER, 1, self._ier)

    # -- The host's side -------------------------------------------------

    def take_output(self) -> bytes:
        """What the guest sent since the last call."""
        taken = bytes(self._out)
        self._out.clear()
        return taken

    def room(self) -> int:
        """How many bytes :meth:`receive` would take; 0 while looped back."""
        if self._mcr & MCR_LOOP:
            return 0
        return FIFO_CAPACITY - len(self._in)

    def receive(self, data: bytes) -> int:
        """Input for the guest. How many bytes of it were taken."""
        taken = min(len(data), self.room())
        self._in += data[:taken]
        self._update()
        return taken

    def take_interrupt(self) -> bool:
        """Whether to signal the (edge) interrupt line, once, since the last call."""
        edge, self._edge = self._edge, False
        return edge

    def statistics(self) -> SerialStatistics:
        """Counters, for the metrics."""
        return SerialStatistics(
            read_count=self._read,
            write_count=self._written,
            dropped_count=self._dropped,
            overrun_count=self._overruns,
        )

    def save(self) -> SerialState:
        """The record. Output must have been taken; it is not part of it."""
        return SerialState(
            baud_divisor_low=self._divisor[0],
            baud_divisor_high=self._divisor[1],
            interrupt_enable=self._ier,
            fifo_control=self._fcr,
            line_control=self._lcr,
            modem_control=self._mcr,
            scratch=self.page.load(SCR, 1),
            overrun=self._overrun,
            transmitter_interrupt=self._thri,
            in_buffer=bytes(self._in),
        )

    # -- Registers -------------------------------------------------------

    def _read_byte(self, offset: int) -> int:
        latched = bool(self._lcr & LCR_DLAB)
        match offset:
            case 0 | 1 if latched:
                return self._divisor[offset]
            case 0:
                return self._pop()
            case 1:
                return self._ier
            case 2:
                return self._identify()
            case 5:
                return self._line_status()
            case 3 | 4 | 6 | 7:
                return self.page.load(offset, 1)
        return 0xFF

    def _write_byte(self, offset: int, value: int) -> None:
        latched = bool(self._lcr & LCR_DLAB)
        match offset:
            case 0 | 1 if latched:
                self._divisor[offset] = value
            case 0:
                self._send(value)
            case 1:
                self._enable(value & IER_MASK)
            case 2:
                self._control_fifo(value)
            case 3 | 4:
                self._control_line(offset, value)
            case 7:
                self.page.store(SCR, 1, value)

    def _pop(self) -> int:
        if not self._in:
            return 0
        self._read += 1
        value = self._in.pop(0)
        self._update()
        return value

    def _identify(self) -> int:
        """IIR: the most urgent cause. Reading it takes back the transmitter's."""
        fifo = IIR_FIFO if self._fcr & FCR_ENABLE else 0
        for cause, identity in (
            (IER_RLSI, IIR_RLSI),
            (IER_RDI, IIR_RDI),
            (IER_THRI, IIR_THRI),
        ):
            if self._causes & cause:
                if cause == IER_THRI:
                    self._thri = False
                    self._update()
                return fifo | identity
        return fifo | IIR_NO_INT

    def _line_status(self) -> int:
        """LSR, which reading clears of its error."""
        value = self.page.load(LSR, 1)
        self._overrun = False
        self._update()
        return value

    def _send(self, value: int) -> None:
        self._written += 1
        if self._mcr & MCR_LOOP:
            self._loop_back(value)
        elif len(self._out) < OUTPUT_CAPACITY:
            self._out.append(value)
        else:
            self._dropped += 1
        self._thri = True
        if self._ier or self._mcr & MCR_LOOP:
            self._update()

    def _loop_back(self, value: int) -> None:
        if len(self._in) < FIFO_CAPACITY:
            self._in.append(value)
        else:
            self._overrun = True
            self._overruns += 1

    def _enable(self, value: int) -> None:
        """IER. A 16550 interrupts whenever THRI is turned on and it is idle."""
        if value & ~self._ier & IER_THRI:
            self._thri = True
        self._ier = value
        # Where the write is posted the page holds it, or a later one, already.
        if self.rules is not _QUICK_RULES:
            self.page.store(IER, 1, value)
        self._update()

    def _control_fifo(self, value: int) -> None:
        """FCR. Clearing, or turning the FIFOs on or off, forgets what is in them."""
        if value & FCR_CLEAR_RCVR or (value ^ self._fcr) & FCR_ENABLE:
            self._in.clear()
        self._fcr = value & (FCR_ENABLE | FCR_TRIGGER) if value & FCR_ENABLE else 0
        self._update()

    def _control_line(self, offset: int, value: int) -> None:
        if offset == LCR:
            self._lcr = value
        else:
            self._mcr = value & MCR_MASK
        rules = self._rules()
        if rules is not self.rules:
            self.rules, self.rules_changed = rules, True
        self._update()

    def _rules(self) -> tuple[Rule, ...]:
        slow = self._lcr & LCR_DLAB or self._mcr & MCR_LOOP
        return _PLAIN_RULES if slow else _QUICK_RULES

    def _update(self) -> None:
        """Make the page and the interrupt true again.

        A new cause is an edge; one nobody has taken is forgotten with its cause.
        """
        received = bool(self._in)
        lsr = LSR_IDLE | LSR_DR * received | LSR_OE * self._overrun
        self.page.store(LSR, 1, lsr)
        self.page.store(LCR, 1, self._lcr)
        self.page.store(MCR, 1, self._mcr)
        self.page.store(MSR, 1, self._modem_status())
        causes = IER_RDI * received | IER_THRI * self._thri | IER_RLSI * self._overrun
        causes &= self._ier
        new = bool(causes & ~self._causes)
        self._edge = bool(causes) and (self._edge or new)
        self._causes = causes

    def _modem_status(self) -> int:
        if not self._mcr & MCR_LOOP:
            return MSR_CTS | MSR_DSR | MSR_DCD
        return sum(into for out, into in LOOPED if self._mcr & out)


@record("serial", 1)
class SerialState:
    """The UART's registers and what it has received; the default is a cold one."""

    baud_divisor_low: U8 = 12
    baud_divisor_high: U8 = 0
    interrupt_enable: U8 = 0
    fifo_control: U8 = 0
    line_control: U8 = LCR_8N1
    modem_control: U8 = MCR_OUT2
    scratch: U8 = 0
    overrun: bool = False
    transmitter_interrupt: bool = False
    in_buffer: Annotated[bytes, Length(0, FIFO_CAPACITY)] = b""
