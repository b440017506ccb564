"""Who answers a guest's exits: what the vCPUs' pump asks of the board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmmd.bus import Window
    from vmmd.cpu.exits import VmEnd


class ExitHandler(Protocol):
    """Who answers exits: called by the pump, in the loop, and never waits."""

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """A posted write, in the order of all vCPUs' posted writes."""

    def io_in(self, port: int, size: int, count: int) -> bytes:
        """``count`` reads of ``size`` bytes from ``port``, one after the other."""

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """``len(data) // size`` writes to ``port``, one after the other."""

    def mmio_read(self, address: int, size: int) -> bytes:
        """A read of ``size`` (1 to 8) bytes."""

    def mmio_write(self, address: int, data: bytes) -> None:
        """A write of 1 to 8 bytes."""

    def settled(self) -> None:
        """A burst of posted writes and answers is over: what it calls for, now."""

    def holding(self) -> bool:
        """Asked after an access was served: keep the vCPU waiting for it?

        For an access that is done only when something else is, such as a device
        reset while a worker still writes to the device's memory.
        """

    async def released(self) -> None:
        """Wait until what was held may go on."""

    def ended(self, end: VmEnd) -> None:
        """A vCPU has ended by itself; what was posted before has been given."""
