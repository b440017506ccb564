"""ACPI's sleep registers of a hardware-reduced machine: how a guest powers off.

Two one-byte registers: SLEEP_CONTROL at offset 0, SLEEP_STATUS at 1 (ACPI 6.5,
4.8.3.7). Resets go to the i8042, where the FADT sends them.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from vmmd.boot.layout import S5_SLEEP_TYPE, SLEEP_ENABLE
from vmmd.bus import RegisterPage
from vmmd.frozen import dataclass
from vmmd.state.record import U8, record

if TYPE_CHECKING:
    from typing import Self

    from vmmd.bus import Rule

LENGTH = 2  # registers
SLEEP_CONTROL, SLEEP_STATUS = 0, 1
SLP_TYP_SHIFT, SLP_TYP_MASK = 2, 0x07


class PowerRequest(enum.Enum):
    """What a guest asks of its machine."""

    POWER_OFF = "power off"


@dataclass(frozen=True, slots=True)
class PowerStatistics:
    """Counters; ``refused``: sleep states that this machine does not have."""

    request_count: int
    refused_count: int


class Power:
    """The sleep registers; all synchronous: they are written once in a life."""

    rules: tuple[Rule, ...] = ()

    def __init__(self, state: PowerState | None = None) -> None:
        state = state or PowerState()
        self.page = RegisterPage()
        self._control = state.sleep_control & 0xFF
        self._request: PowerRequest | None = None
        self._requests = self._refused = 0

    @classmethod
    def restore(cls, state: PowerState) -> Self:
        """The registers as they were saved."""
        return cls(state)

    def read(self, offset: int, size: int) -> int:
        """SLP_EN reads as zero; so does the status: this machine never wakes."""
        return self._control if offset == SLEEP_CONTROL and size == 1 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write; SLP_EN with S5's type powers off."""
        if offset != SLEEP_CONTROL or size != 1:
            return
        self._control = value & 0xFF & ~SLEEP_ENABLE
        if not value & SLEEP_ENABLE:
            return
        if value >> SLP_TYP_SHIFT & SLP_TYP_MASK == S5_SLEEP_TYPE:
            self._requests += 1
            self._request = PowerRequest.POWER_OFF
        else:
            self._refused += 1

    def take_request(self) -> PowerRequest | None:
        """What the guest has asked for since the last call."""
        request, self._request = self._request, None
        return request

    def statistics(self) -> PowerStatistics:
        """Counters."""
        return PowerStatistics(
            request_count=self._requests, refused_count=self._refused
        )

    def save(self) -> PowerState:
        """The record. A request must have been taken."""
        return PowerState(sleep_control=self._control)


@record("power", 1)
class PowerState:
    """The sleep control register."""

    sleep_control: U8 = 0
