"""The boot timer: a guest writes a byte when it is up, the log gets the times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.bus import RegisterPage
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.bus import Rule

LENGTH = 0x1000
BOOTED = 123  # the byte, written to offset 0


def boot_time_text(wall_us: int, cpu_us: int) -> str:
    """The log line: microseconds since the start, on the clock and on the CPU."""
    return (
        f"Guest-boot-time = {wall_us:>6} us {wall_us // 1000} ms, "
        f"{cpu_us:>6} CPU us {cpu_us // 1000} CPU ms"
    )


@dataclass(frozen=True, slots=True)
class BootTimerStatistics:
    """How often the guest said that it is up."""

    signal_count: int


class BootTimer:
    """One page of MMIO without state: it is not there after a restore."""

    rules: tuple[Rule, ...] = ()

    def __init__(self) -> None:
        self.page = RegisterPage()
        self._signalled = False
        self._signals = 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 (the bus's form)
        """Every register reads as zero."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write; what is not the byte in its place has no effect."""
        if (offset, size, value) == (0, 1, BOOTED):
            self._signalled = True
            self._signals += 1

    def take_signal(self) -> bool:
        """Whether the guest has said that it is up since the last call."""
        signalled, self._signalled = self._signalled, False
        return signalled

    def statistics(self) -> BootTimerStatistics:
        """Counters."""
        return BootTimerStatistics(signal_count=self._signals)
