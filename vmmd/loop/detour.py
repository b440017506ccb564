"""Frames of one interface that do not go to the tap: the metadata service's.

The device stops at them; what answers them is a state machine without a clock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Protocol

    from vmmd.virtio.net import NetDevice

    class Responder(Protocol):
        """What answers frames in the tap's place (``vmmd.mmds``)."""

        def receive(self, frame: bytes, now_ns: int) -> None:
            """Take a frame of the guest's."""

        def take(self) -> bytes | None:
            """The next frame for the guest; None: no more for now."""

        def timeout_ns(self, now_ns: int) -> int | None:
            """How long until ``tick`` is due; None: not by itself."""

        def tick(self, now_ns: int) -> None:
            """Do what is due."""


class Detour:
    """Carries frames between a device and what answers them."""

    def __init__(self, device: NetDevice, responder: Responder) -> None:
        self._device = device
        self._responder = responder
        self._reply: bytes | None = None

    def answer(self) -> None:
        """After the device has stopped at a frame: have it answered."""
        if frame := self._device.take_detoured():
            self._responder.receive(frame, time.monotonic_ns())
        self._deliver()

    def tick(self) -> None:
        """Do what is due, and give the driver what found no buffer before."""
        now_ns = time.monotonic_ns()
        if self._responder.timeout_ns(now_ns) == 0:
            self._responder.tick(now_ns)
        self._deliver()

    def timeout_ns(self) -> int | None:
        """How long until :meth:`tick` is due; None: not by itself."""
        return self._responder.timeout_ns(time.monotonic_ns())

    def _deliver(self) -> None:
        """As long as the driver has buffers; its kick brings more."""
        while True:
            if self._reply is None:
                self._reply = self._responder.take()
            if self._reply is None or not self._device.deliver(self._reply):
                return
            self._reply = None
