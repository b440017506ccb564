"""A disk as slow as a test wants it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from vmmd.virtio.block import BlockDevice

NEVER = (1 << 64) - 1


class Gate:
    """A disk whose requests do not end before it is opened."""

    def __init__(self, device: BlockDevice) -> None:
        self._run = device.run
        self._open = threading.Event()
        self.entered = trio.Event()
        device.native.slow_until_ns = NEVER
        device.run = self.run  # type: ignore[method-assign]  # a slow disk

    def run(self, slot: int) -> None:
        trio.from_thread.run_sync(self.entered.set)
        self._open.wait(5)
        self._run(slot)

    def open(self) -> None:
        self._open.set()
