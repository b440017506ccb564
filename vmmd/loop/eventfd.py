"""An eventfd that a trio task waits for and anybody may signal."""

from __future__ import annotations

import os

import trio

from vmmd.loop.ioctl import host_error


class EventFd:
    """Owns one non-blocking, close-on-exec eventfd. ``fd`` is -1 once closed.

    HostError if there can be no more.
    """

    def __init__(self) -> None:
        try:
            self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise host_error("eventfd", error) from error

    def signal(self) -> None:
        """Add one to the counter; wakes the waiter."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> int:
        """Read the counter down to zero; what it was. Never blocks."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    async def wait(self) -> int:
        """Wait until the counter is not zero, then clear it. A checkpoint."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if count := self.clear():
                return count

    def close(self) -> None:
        """Close it; a task that waits gets trio.ClosedResourceError."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
