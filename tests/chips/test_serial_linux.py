"""The UART as Linux's drivers/tty/serial/8250 meets it."""

from __future__ import annotations

from tests.helpers.guest_port import GuestPort
from vmmd.chips.serial import (
    FCR,
    IER,
    IIR,
    LCR,
    LSR,
    MCR,
    MSR,
    RBR,
    SCR,
    THR,
    Serial,
    SerialState,
)

RDI, THRI, RLSI = 1, 2, 4
NO_INT = 1


def autoconfig(port: GuestPort) -> str:
    """The probe of 8250_port.c (6.1): what kind of UART it finds."""
    ier = port.inb(IER)
    port.outb(IER, 0)
    first = port.inb(IER) & 0x0F
    port.outb(IER, 0x0F)
    second = port.inb(IER) & 0x0F
    port.outb(IER, ier)
    if (first, second) != (0, 0x0F):
        return "no UART"
    mcr, lcr = port.inb(MCR), port.inb(LCR)
    port.outb(MCR, 0x10 | 0x0A)
    looped = port.inb(MSR) & 0xF0
    port.outb(MCR, mcr)
    if looped != 0x90:
        return "no UART: loopback"
    port.outb(LCR, 0xBF)
    port.outb(2, 0)  # EFR
    port.outb(LCR, 0)
    port.outb(FCR, 1)
    kind = {0: "8250", 1: "unknown", 2: "16550", 3: "16550A"}[port.inb(IIR) >> 6]
    if kind == "16550A":
        kind = autoconfig_16550a(port)
    if kind == "8250":
        scratch = port.inb(SCR)
        port.outb(SCR, 0xA5)
        kept = port.inb(SCR)
        port.outb(SCR, scratch)
        kind = "16450" if kept == 0xA5 else kind
    port.outb(LCR, lcr)
    port.outb(MCR, mcr)
    port.outb(FCR, 0)
    port.inb(RBR)
    port.outb(IER, 0)
    return kind


def autoconfig_16550a(port: GuestPort) -> str:
    """The look for relatives of the 16550A."""
    for mode in (0x80, 0xBF):
        port.outb(LCR, mode)
        if port.inb(2) == 0:
            return "has an EFR"
    port.outb(LCR, 0)
    status1 = port.inb(MCR)
    port.outb(LCR, 0xE0)
    status2 = port.inb(2)
    if not (status1 ^ status2) & 0x10:
        port.outb(LCR, 0)
        port.outb(MCR, status1 ^ 0x10)
        port.outb(LCR, 0xE0)
        status2 = port.inb(2)
        port.outb(LCR, 0)
        port.outb(MCR, status1)
        if (status1 ^ status2) & 0x10:
            return "NS16550A"
    port.outb(LCR, 0)
    port.outb(FCR, 0x21)
    status1 = port.inb(IIR) >> 5
    port.outb(FCR, 1)
    port.outb(LCR, 0x80)
    port.outb(FCR, 0x21)
    status2 = port.inb(IIR) >> 5
    port.outb(FCR, 1)
    port.outb(LCR, 0)
    if (status1, status2) == (6, 7):
        return "TI16750"
    ier = port.inb(IER)
    port.outb(IER, ier & ~0x40)
    if not port.inb(IER) & 0x40:
        port.outb(IER, ier | 0x40)
        if port.inb(IER) & 0x40:
            return "XScale"
    port.outb(IER, ier)
    return "16550A"


def startup(port: GuestPort) -> None:
    """serial8250_do_startup: clear, test THRE, turn interrupts on."""
    for value in (1, 7, 0):
        port.outb(FCR, value)
    for offset in (LSR, RBR, IIR, MSR):
        port.inb(offset)
    port.outb(LCR, 3)
    port.outb(MCR, 8)
    port.outb(IER, THRI)
    first = port.inb(IIR)
    port.outb(IER, 0)
    port.outb(IER, THRI)
    second = port.inb(IIR)
    port.outb(IER, 0)
    assert (first & 0x0F, second & 0x0F) == (2, 2)
    assert port.inb(LSR) & 0x60 == 0x60
    port.outb(FCR, 0x81)
    port.outb(IER, RLSI | RDI)


def handle_interrupt(port: GuestPort, pending: bytearray) -> bytes:
    """serial8250_interrupt, which sends ``pending``; what it read."""
    got = bytearray()
    while not port.inb(IIR) & NO_INT:
        while port.inb(LSR) & 1:
            got.append(port.inb(RBR))
        if port.inb(LSR) & 0x20:
            for value in pending[:16]:
                port.outb(THR, value)
            del pending[:16]
            if not pending:
                port.outb(IER, port.inb(IER) & ~THRI)
    return bytes(got)


def test_linux_finds_a_16550a() -> None:
    serial = Serial()
    port = GuestPort(serial)
    assert autoconfig(port) == "16550A"
    assert serial.take_output() == b""
    assert serial.save() == SerialState(transmitter_interrupt=True)


def test_output_by_interrupts() -> None:
    serial = Serial()
    port = GuestPort(serial)
    startup(port)
    text = bytes(range(100))
    pending = bytearray(text)
    serial.take_interrupt()
    port.outb(IER, port.inb(IER) | THRI)
    port.drain()
    rounds = 0
    while serial.take_interrupt():
        handle_interrupt(port, pending)
        port.drain()
        rounds += 1
    assert serial.take_output() == text
    assert rounds == 1
    assert not pending


def test_input_by_interrupts() -> None:
    serial = Serial()
    port = GuestPort(serial)
    startup(port)
    serial.take_interrupt()
    port.drain()
    assert serial.receive(b"hello") == 5
    assert serial.take_interrupt()
    assert not serial.take_interrupt()
    assert handle_interrupt(port, bytearray()) == b"hello"
    assert serial.receive(b"!") == 1
    assert serial.take_interrupt()
    assert handle_interrupt(port, bytearray()) == b"!"
    assert not serial.take_interrupt()


def test_a_byte_that_comes_while_one_waits_is_not_lost() -> None:
    serial = Serial()
    port = GuestPort(serial)
    startup(port)
    port.drain()
    serial.receive(b"a")
    assert serial.take_interrupt()
    serial.receive(b"b")
    assert handle_interrupt(port, bytearray()) == b"ab"


def test_a_console_line_needs_no_synchronous_exit() -> None:
    """printk's way: save the enables, clear them, send, put them back."""
    serial = Serial()
    port = GuestPort(serial)
    startup(port)
    before = port.synchronous
    for line in (b"first\r\n", b"second\r\n"):
        ier = port.inb(IER)
        assert ier == RLSI | RDI  # although nothing was consumed since
        port.outb(IER, 0)
        for value in line:
            assert port.inb(LSR) & 0x20
            port.outb(THR, value)
        assert port.inb(LSR) & 0x60 == 0x60
        port.outb(IER, ier)
    assert port.synchronous == before
    port.drain()
    assert serial.take_output() == b"first\r\nsecond\r\n"
    serial.receive(b"x")
    assert serial.take_interrupt()


def test_polled_input() -> None:
    serial = Serial()
    port = GuestPort(serial)
    assert port.inb(LSR) & 1 == 0
    serial.receive(b"ok")
    assert not serial.take_interrupt()
    got = bytearray()
    while port.inb(LSR) & 1:
        got.append(port.inb(RBR))
    assert got == b"ok"
    assert port.inb(RBR) == 0
