"""What the board asks of the loop's half of a device: its pump."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmmd.loop.eventfd import EventFd
    from vmmd.virtio.device import VirtioDevice


class Transport(Protocol):
    """What a pump asks of the device's transport."""

    def mark_broken(self) -> None:
        """Set NEEDS_RESET and interrupt."""


class Pump(Protocol):
    """Serves one device with what it owns: a file, a tap."""

    @property
    def device(self) -> VirtioDevice:
        """The device that is served."""

    @property
    def busy(self) -> bool:
        """Whether something was taken from a ring that a worker still holds."""

    async def pump(self, transport: Transport, kick: EventFd) -> None:
        """Serve until cancelled. Pulls before it waits."""

    async def quiesce(self) -> None:
        """Take nothing new, and wait until what was taken is answered."""

    async def idle(self) -> None:
        """Wait until it is not ``busy``."""

    def resume(self) -> None:
        """Go on after :meth:`quiesce`, with a look at the rings first."""

    async def sync(self) -> None:
        """Bring what the device has written where a snapshot may rely on it.

        HostError if that failed.
        """

    async def aclose(self) -> None:
        """After the pump: let go of what it owns. HostError: data may be lost,
        and all is let go of all the same."""
