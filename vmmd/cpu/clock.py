"""The guest's kvmclock, and what it says of time: kvm_clock_data."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

from vmmd.cpu import layout
from vmmd.errors import SnapshotError
from vmmd.state.record import U32, record

if TYPE_CHECKING:
    from typing import Self

CLOCK_TSC_STABLE = 1 << 1
CLOCK_REALTIME = 1 << 2
CLOCK_HOST_TSC = 1 << 3

NO_REALTIME = "clock_realtime requested but not present in the snapshot state"
"""Firecracker's text."""

REALTIME_UNKNOWN = (
    "clock_realtime requested, and this host's KVM cannot set a clock by the wall's:"
    " load it on Linux 5.16 or newer, or without clock_realtime"
)

_CLOCK = struct.Struct("<QI4xQQ16x")


@record("kvm_clock_data", 1)
class ClockData:
    """``struct kvm_clock_data``, 48 bytes.

    ``clock`` is the guest's kvmclock and ``realtime`` the host's wall clock at
    that moment, in nanoseconds; ``host_tsc`` is the host's TSC then. ``flags``
    (CLOCK_*) say which of the last two are there.
    """

    clock: int = 0
    flags: U32 = 0
    realtime: int = 0
    host_tsc: int = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_CLOCK, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_CLOCK, cls, raw)

    def dated(self, wall_ns: int) -> ClockData:
        """With the wall time, read at the same moment, where KVM did not say it.

        It says it only once a vCPU has run, and of hosts that live by the TSC.
        """
        if self.flags & CLOCK_REALTIME:
            return self
        flags = self.flags | CLOCK_REALTIME
        return dataclasses.replace(self, flags=flags, realtime=wall_ns)

    def to_set(self, *, clock_realtime: bool) -> ClockData:
        """What KVM_SET_CLOCK takes: it refuses the flags that only tell.

        The guest's clock goes on where it stood; with ``clock_realtime`` it
        also jumps by the wall time that has passed since. SnapshotError if it
        shall and the host that saved it could not say the wall time.
        """
        if clock_realtime and not self.flags & CLOCK_REALTIME:
            raise SnapshotError(NO_REALTIME)
        flags = CLOCK_REALTIME if clock_realtime else 0
        return dataclasses.replace(self, flags=flags)
