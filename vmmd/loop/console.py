"""The serial console on standard input and output (the pair of chips/serial).

Output is written once per burst and never waited for: what standard output
cannot take is kept, up to a bound, until it can; past that it is dropped and
counted. Input is read only from what can be waited for (a terminal, a pipe, a
socket), only as much as the UART has room for, and ends for good when the other
side closes: a hung-up descriptor is always readable, so a pump that went on
would spin.

A terminal is made raw while input is pumped. Only the foreground may do that: a
background process would be stopped by SIGTTOU or SIGTTIN, and its guest with it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import stat
import termios
import tty
from typing import TYPE_CHECKING

import trio

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.chips.serial import Serial

BACKLOG_CAPACITY = 64 * 1024  # bytes of output kept for a slow reader
_LAST_WORDS_STEP_S = 0.01
_OPEN_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class ConsoleStatistics:
    """``error_count``: writes that failed; ``dropped_count``: bytes lost by them
    or by a reader that was too slow; ``backlog``: bytes that wait for one."""

    error_count: int
    dropped_count: int
    backlog: int
    input_open: bool


class Console:
    """Moves a UART's bytes. The two descriptors given stay the caller's.

    :meth:`close` puts back what was changed, the terminal's mode above all. That
    also happens at exit, however it comes about, but for ``os._exit`` and death
    by a signal: call it before those.
    """

    def __init__(self, serial: Serial, stdin_fd: int = 0, stdout_fd: int = 1) -> None:
        self._serial = serial
        self._backlog = b""
        self._errors = self._dropped = 0
        self._room = trio.lowlevel.ParkingLot()
        self._blocked = trio.lowlevel.ParkingLot()
        self._terminal: list[int | list[bytes | int]] | None = None
        self._own: list[int] = []
        self._flags: list[tuple[int, int]] = []
        self._input_open = _is_input(stdin_fd)
        self._in = stdin_fd
        if self._input_open:
            self._in = self._nonblocking(stdin_fd, os.O_RDONLY)
        self._out = self._nonblocking(stdout_fd, os.O_WRONLY)
        atexit.register(self.close)

    # -- Output

    def flush(self) -> None:
        """Write what the guest sent and see whether it made room for input.

        Call it after whatever the guest did to the UART; it never waits.
        """
        if self._room and self._serial.room():
            self._room.unpark_all()
        if data := self._serial.take_output():
            self._write(self._backlog + data)

    async def run_output(self) -> None:
        """Write the backlog whenever standard output can take some, until closed."""
        while True:
            if not self._backlog:
                await self._blocked.park()
            try:
                await trio.lowlevel.wait_writable(self._out)
            except trio.ClosedResourceError:
                return
            self._write(self._backlog)

    async def finish(self, timeout_s: float) -> None:
        """Give a slow reader ``timeout_s`` for the last words."""
        self.flush()
        with trio.move_on_after(timeout_s):
            while self._backlog:
                # The descriptor may still be waited for by run_output.
                await trio.sleep(_LAST_WORDS_STEP_S)
                self._write(self._backlog)

    def _write(self, data: bytes) -> None:
        try:
            rest = data[os.write(self._out, data) :]
        except BlockingIOError:
            rest = data
        except OSError:
            # No reader (EPIPE), no terminal (EIO), no space: nobody to tell.
            self._errors += 1
            self._dropped += len(data)
            rest = b""
        self._dropped += max(0, len(rest) - BACKLOG_CAPACITY)
        self._backlog = rest[:BACKLOG_CAPACITY]
        if rest:
            self._blocked.unpark_all()

    # -- Input

    async def run_input(self, received: Callable[[], None]) -> None:
        """Pump input into the UART until standard input ends, or for ever.

        ``received`` is called after each burst: the UART may want an interrupt.
        Returns at once if standard input cannot be waited for.
        """
        if not self._input_open:
            return
        self._make_raw()
        try:
            while data := await self._next_input():
                self._serial.receive(data)
                received()
        finally:
            self._input_open = False
            self._restore_terminal()

    async def run(self, received: Callable[[], None]) -> None:
        """:meth:`run_input` and :meth:`run_output` together."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run_output)
            await self.run_input(received)

    async def _next_input(self) -> bytes:
        """The next bytes, no more than there is room for; empty: there are none."""
        while True:
            while not self._serial.room():
                await self._room.park()
            try:
                await trio.lowlevel.wait_readable(self._in)
                # Somebody may have read before us, the guest may have looped back.
                if room := self._serial.room():
                    return os.read(self._in, room)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return b""  # EIO: the terminal is gone; or we are closed

    # -- The descriptors' modes

    def close(self) -> None:
        """Put the terminal and the descriptors back as they were. Idempotent."""
        atexit.unregister(self.close)
        self._restore_terminal()
        self._input_open = False
        # Backwards: both may be one open file, and then the first had its flags.
        while self._flags:
            _set_flags(*self._flags.pop())
        while self._own:
            fd = self._own.pop()
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.notify_closing(fd)
            os.close(fd)

    def statistics(self) -> ConsoleStatistics:
        """Counters, and whether input is still pumped."""
        return ConsoleStatistics(
            error_count=self._errors,
            dropped_count=self._dropped,
            backlog=len(self._backlog),
            input_open=self._input_open,
        )

    def _nonblocking(self, fd: int, mode: int) -> int:
        """A non-blocking descriptor for what ``fd`` is.

        One of our own where that can be had: O_NONBLOCK belongs to the open
        file, and everybody who shares it, a shell among them, would get it too.
        """
        try:
            kind = os.fstat(fd).st_mode
            if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
                own = os.open(f"/proc/self/fd/{fd}", mode | _OPEN_FLAGS)
                self._own.append(own)
                return own
        except OSError:
            pass  # closed, of another user, or a FIFO without a reader
        self._share_nonblocking(fd)
        return fd

    def _share_nonblocking(self, fd: int) -> None:
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except OSError:
            return  # closed: reads and writes will say so
        self._flags.append((fd, flags))
        _set_flags(fd, flags | os.O_NONBLOCK)

    def _make_raw(self) -> None:
        if os.isatty(self._in):
            self._terminal = termios.tcgetattr(self._in)
            tty.setraw(self._in, termios.TCSANOW)

    def _restore_terminal(self) -> None:
        """Also from the background, where setting it would stop this process."""
        terminal, self._terminal = self._terminal, None
        if terminal is None:
            return
        old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            termios.tcsetattr(self._in, termios.TCSANOW, terminal)
        except termios.error:
            pass  # the terminal is gone
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _is_input(fd: int) -> bool:
    """Whether ``fd`` can be waited for and is this process's to read."""
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
            return True
        return os.isatty(fd) and _in_foreground(fd)
    except OSError:
        return False


def _in_foreground(fd: int) -> bool:
    """Whether reading and changing the terminal would not stop this process.

    A terminal that is not this session's own has no job control over it.
    """
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True


def _set_flags(fd: int, flags: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    except OSError:
        return  # closed meanwhile
