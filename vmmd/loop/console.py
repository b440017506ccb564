"""The guest's serial console on this process's standard input and output.

Output is written in bursts and never waited for: what a full pipe does not take
is dropped and counted, as Firecracker does. Input is read only from what can be
waited for (a terminal, a pipe, a socket), as fast as the guest takes it, and no
more once it has ended.
"""

from __future__ import annotations

import os
import stat
import termios
import tty
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.chips.serial import Serial

_READ_SIZE = 4096
_FULL_RETRY_S = 0.02


class Console:
    """Moves bytes between a UART and two descriptors, which stay the caller's."""

    def __init__(self, serial: Serial, stdin_fd: int = 0, stdout_fd: int = 1) -> None:
        self.dropped_bytes = 0
        self._serial = serial
        self._stdin_fd = stdin_fd
        self._out_fd, self._owned = _non_blocking(stdout_fd)
        self._saved = _make_raw(stdin_fd)

    def flush(self) -> None:
        """Print what the guest has written; never waits."""
        data = self._serial.take_output()
        while data:
            try:
                data = data[os.write(self._out_fd, data) :]
            except InterruptedError:
                continue
            except OSError:
                # Full, or nobody reads any more: the guest goes on without.
                self.dropped_bytes += len(data)
                return

    async def run_input(self, settled: Callable[[], None]) -> None:
        """Feed the guest until the input ends; ``settled`` after each burst."""
        if not _can_wait(self._stdin_fd):
            return
        while True:
            await trio.lowlevel.wait_readable(self._stdin_fd)
            try:
                data = os.read(self._stdin_fd, _READ_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return  # a terminal that was hung up
            if not data:
                return
            await self._feed(data, settled)

    async def _feed(self, data: bytes, settled: Callable[[], None]) -> None:
        """Give the UART all of ``data``, at the guest's pace."""
        while data:
            data = data[self._serial.receive(data) :]
            settled()
            if data:
                await trio.sleep(_FULL_RETRY_S)

    def close(self) -> None:
        """Print what is left and give the terminal back as it was."""
        self.flush()
        if self._saved is not None:
            termios.tcsetattr(self._stdin_fd, termios.TCSADRAIN, self._saved)
            self._saved = None
        if self._owned:
            os.close(self._out_fd)
            self._owned = False


def _non_blocking(fd: int) -> tuple[int, bool]:
    """A descriptor of the same file that does not block; whether it is ours.

    Its own O_NONBLOCK would be everybody's who shares it, a shell among them.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{fd}", flags), True
        if stat.S_ISSOCK(mode):
            os.set_blocking(fd, False)
    except OSError:
        return fd, False
    return fd, False


def _can_wait(fd: int) -> bool:
    """Whether ``fd`` is open and of a kind that epoll knows and that we read."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    if stat.S_ISCHR(mode):
        return os.isatty(fd)
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _make_raw(fd: int) -> list[Any] | None:
    """Make a terminal raw; what it was, or None if it is none."""
    try:
        if not os.isatty(fd):
            return None
        saved: list[Any] = termios.tcgetattr(fd)
        tty.setraw(fd, termios.TCSANOW)
    except (OSError, termios.error):
        return None
    return saved
