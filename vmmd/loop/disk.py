"""Disks: the files behind block devices, and the pump that serves their rings.

The loop never blocks on a disk. ``block.c`` tries reads with RWF_NOWAIT, carries
short things out at once, and leaves what might wait in a slot; here each slot
becomes one C call in a worker thread. A worker that ends rings the device's own
kick, so that the pump has one thing to wait for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from vmmd._native import lib
from vmmd.errors import HostError
from vmmd.limiter import UNLIMITED
from vmmd.virtio.block import Backing, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.config import RateLimiterConfig
    from vmmd.limiter import LimiterState
    from vmmd.loop.eventfd import EventFd
    from vmmd.loop.files import HostFile
    from vmmd.loop.pump import Transport
    from vmmd.loop.throttle import Throttle
    from vmmd.virtio.block import BlockDevice


class BackingFile:
    """Owns the open file of one drive until :meth:`close`."""

    def __init__(self, path: str, fd: int, backing: Backing) -> None:
        self.path = path
        self.backing = backing
        self._fd = fd

    @classmethod
    def of(cls, file: HostFile) -> BackingFile:
        """A duplicate of ``file``, with what a device has to know of it."""
        own = file.duplicate()
        fd = own.fd
        backing = Backing(fd, own.size, device_id(fd), knows_nowait(fd))
        return cls(own.path, fd, backing)

    def sync(self) -> None:
        """fsync; blocks, so call it in a worker. Raises HostError."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise HostError(f"fsync {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def device_id(fd: int) -> bytes:
    """GET_ID's answer: device, special device and inode in decimal, 20 bytes."""
    info = os.fstat(fd)
    return f"{info.st_dev}{info.st_rdev}{info.st_ino}".encode()[:20]


def knows_nowait(fd: int) -> bool:
    """Whether a read of this file may be tried with RWF_NOWAIT."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def _throttle(state: LimiterState | None) -> Throttle:
    from vmmd.loop.throttle import Throttle  # few disks have limits

    return Throttle(state)


def find_epoll() -> int | None:
    """The epoll of the running loop; None if it cannot be told.

    trio has no name for it, but it is the only one of the process.
    """
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return None
    found = [int(name) for name in names if _is_epoll(f"/proc/self/fd/{name}")]
    return found[0] if len(found) == 1 else None


def _is_epoll(path: str) -> bool:
    try:
        return os.readlink(path) == "anon_inode:[eventpoll]"
    except OSError:  # the fd that listed the folder is closed by now
        return False


class Disk:
    """Serves one block device from one file; owns the file.

    ``log`` takes the one line that a broken ring is worth.
    """

    def __init__(
        self, device: BlockDevice, file: BackingFile, log: Callable[[str], None]
    ) -> None:
        self.device = device
        self.file = file
        self._log = log
        self._quiesced = False
        self._own_signals = 0
        self._kick: EventFd | None = None
        self._settled = trio.lowlevel.ParkingLot()
        self._throttle: Throttle | None = None
        self._threads = trio.CapacityLimiter(lib.BLOCK_SLOTS)

    async def pump(self, transport: Transport, kick: EventFd) -> None:
        """Serve the device until cancelled, which waits for its workers.

        Pulls before it waits: what a restore left in the ring needs no kick.
        """
        self._kick = kick
        if self._throttle is None and self.device.limiter is not None:
            self._set_throttle(_throttle(self.device.limiter))
        loop_fd = find_epoll()
        if loop_fd is not None:
            self.device.watch(kick.fd, loop_fd)
        try:
            async with trio.open_nursery() as workers:
                await self._serve(transport, kick, workers)
        finally:
            self.device.unwatch()

    @property
    def busy(self) -> bool:
        """Whether a request is with a worker or waits for one."""
        return bool(self.device.in_flight)

    async def quiesce(self) -> None:
        """Take no new request, and wait until each that was taken is answered."""
        self._quiesced = True
        await self.idle()
        self._keep_limiter()

    async def idle(self) -> None:
        """Wait until no request is with a worker or waits for one."""
        while self.busy:
            await self._settled.park()

    def resume(self) -> None:
        """Go on after :meth:`quiesce`, with a look at the ring first."""
        self._quiesced = False
        if self._kick is not None:
            self._ring(self._kick)

    async def sync(self) -> None:
        """fsync the file in a worker. Raises HostError."""
        self._keep_limiter()
        await trio.to_thread.run_sync(self.file.sync)

    async def replace(self, file: BackingFile) -> None:
        """Go on with another file, which is owned from here; closes the old one.

        The caller tells the driver that the configuration has changed.
        """
        was_quiesced = self._quiesced
        await self.quiesce()
        self.device.replace(file.backing, file.path)
        self.file.close()
        self.file = file
        if not was_quiesced:
            self.resume()

    def limit(self, update: RateLimiterConfig) -> None:
        """What a PATCH asks of the rate limiter, from the next request on."""
        throttle = self._throttle or _throttle(self.device.limiter)
        throttle.update(update)
        self._set_throttle(throttle)
        self.device.limiter = throttle.save()
        if self._kick is not None:
            self._ring(self._kick)

    async def aclose(self) -> None:
        """After the pump: write a Writeback disk out and close the file.

        Raises HostError if that failed; the file is closed all the same.
        """
        try:
            if self.device.flushes:
                with trio.CancelScope(shield=True):
                    await self.sync()
        finally:
            self.file.close()

    async def _serve(
        self, transport: Transport, kick: EventFd, workers: trio.Nursery
    ) -> None:
        while True:
            stop = self._turn(transport)
            while (slot := self.device.take()) is not None:
                workers.start_soon(self._work, slot, kick)
            if stop is Stop.BUDGET:
                await trio.lowlevel.checkpoint()
            elif stop is Stop.THROTTLED and self._throttle is not None:
                await self._wait_for_tokens(self._throttle, kick)
            else:
                await self._wait(kick)

    def _turn(self, transport: Transport) -> Stop:
        if self._quiesced:
            self.device.collect()
            stop = Stop.EMPTY
        else:
            stop = self._drain()
        if stop is Stop.BROKEN and self.device.fault is None:
            self._break(transport)
        if not self.busy:
            self._settled.unpark_all()
        return stop

    def _drain(self) -> Stop:
        throttle = self._throttle
        if throttle is None:
            return self.device.drain()
        self.device.limit(*throttle.allowance())
        stop = self.device.drain()
        throttle.consume(*self.device.used)
        return stop

    def _set_throttle(self, throttle: Throttle) -> None:
        """Without limits there is none, so that it costs nothing."""
        self._throttle = throttle if throttle.limits else None
        self.device.limit(UNLIMITED, UNLIMITED)

    def _keep_limiter(self) -> None:
        """Have the device's record say what the limiter has left by now."""
        if self._throttle is not None:
            self.device.limiter = self._throttle.save()

    def _break(self, transport: Transport) -> None:
        self.device.mark_fault()
        transport.mark_broken()
        self._log(f"block {self.device.drive_id}: {self.device.fault}; needs a reset")

    async def _work(self, slot: int, kick: EventFd) -> None:
        await trio.to_thread.run_sync(self.device.run, slot, limiter=self._threads)
        self._ring(kick)

    def _ring(self, kick: EventFd) -> None:
        self._own_signals += 1
        kick.signal()

    async def _wait_for_tokens(self, throttle: Throttle, kick: EventFd) -> None:
        """A kick ends it too: a worker is done, or the limits are others."""
        with trio.move_on_at(throttle.deadline()) as scope:
            await self._wait(kick)
        self.device.rate_limiter_event_count += scope.cancelled_caught

    async def _wait(self, kick: EventFd) -> None:
        signals = await kick.wait()
        self.device.queue_event_count += signals > self._own_signals
        self._own_signals = 0
