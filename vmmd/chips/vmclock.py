"""VMClock: a page of guest memory that says when time was disrupted.

The page is ``struct vmclock_abi`` of Linux (``linux/vmclock-abi.h``). There is no
clock in it, only two counters: a guest that finds ``disruption_marker`` changed
knows that its clock must be set anew, and by ``vm_generation_counter`` that it
was restored and may not be the only one. It finds the page by ACPI
(``AMZNC10C``); the interrupt reaches it as a notification of that device.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

from vmmd.boot import layout
from vmmd.chips.acpi_place import Place
from vmmd.errors import SnapshotError
from vmmd.state.record import U8, U16, U32, record

if TYPE_CHECKING:
    from typing import Self

MAGIC = int.from_bytes(b"VCLK", "little")
VERSION = 1
COUNTER_INVALID = 255
STATUS_UNKNOWN = 0
FLAG_VM_GEN_COUNTER_PRESENT = 1 << 8
FLAG_NOTIFICATION_PRESENT = 1 << 9

_PAGE = struct.Struct("<IIHBBIQQ2xBBHBB9Q")
_SEQ_COUNT, _DISRUPTION_MARKER, _VM_GENERATION_COUNTER = 12, 16, 104
_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


class VmClock:
    """What the page says, where it is, and which interrupt announces a change."""

    def __init__(self, state: VmClockState) -> None:
        state.check()
        self.address = state.guest_address
        self.gsi = state.gsi
        self._page = state.inner

    @classmethod
    def restore(cls, state: VmClockState) -> Self:
        """From a record, at a boot the default one. SnapshotError: it cannot be."""
        return cls(state)

    def page(self) -> tuple[int, bytes]:
        """``(gpa, bytes)`` of the whole structure: to write at a boot."""
        return self.address, self._page.pack()

    def disrupt(self) -> tuple[tuple[int, bytes], ...]:
        """``(gpa, bytes)`` to write, in this order, after a restore.

        The sequence count is odd while the counters change. The interrupt
        follows, once KVM's state is set.
        """
        page = self._page
        odd = page.seq_count | 1
        self._page = dataclasses.replace(
            page,
            seq_count=(odd + 1) & _U32,
            disruption_marker=(page.disruption_marker + 1) & _U64,
            vm_generation_counter=(page.vm_generation_counter + 1) & _U64,
        )
        new = self._page
        return (
            self._field(_SEQ_COUNT, "<I", odd),
            self._field(_DISRUPTION_MARKER, "<Q", new.disruption_marker),
            self._field(_VM_GENERATION_COUNTER, "<Q", new.vm_generation_counter),
            self._field(_SEQ_COUNT, "<I", new.seq_count),
        )

    def _field(self, offset: int, form: str, value: int) -> tuple[int, bytes]:
        return self.address + offset, struct.pack(form, value)

    def save(self) -> VmClockState:
        """The record."""
        return VmClockState(guest_address=self.address, gsi=self.gsi, inner=self._page)


@record("vmclock_abi", 1)
class VmClockPage:
    """``struct vmclock_abi``, 112 bytes; the default is what is there at a boot."""

    magic: U32 = MAGIC
    size: U32 = layout.VMCLOCK_SIZE
    version: U16 = VERSION
    counter_id: U8 = COUNTER_INVALID
    time_type: U8 = 0
    seq_count: U32 = 0
    disruption_marker: int = 0
    flags: int = FLAG_VM_GEN_COUNTER_PRESENT | FLAG_NOTIFICATION_PRESENT
    clock_status: U8 = STATUS_UNKNOWN
    leap_second_smearing_hint: U8 = 0
    tai_offset_sec: U16 = 0
    leap_indicator: U8 = 0
    counter_period_shift: U8 = 0
    counter_value: int = 0
    counter_period_frac_sec: int = 0
    counter_period_esterror_rate_frac_sec: int = 0
    counter_period_maxerror_rate_frac_sec: int = 0
    time_sec: int = 0
    time_frac_sec: int = 0
    time_esterror_nanosec: int = 0
    time_maxerror_nanosec: int = 0
    vm_generation_counter: int = 0

    def pack(self) -> bytes:
        """The structure's bytes. SnapshotError if a value does not fit."""
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        try:
            return _PAGE.pack(*values)
        except struct.error as error:
            raise SnapshotError(f"vmclock: inner: {error}") from error


_COLD_PAGE = VmClockPage()


@record("vmclock", 1)
class VmClockState:
    """The guest-physical address of the page, the interrupt, and what it says."""

    gsi: U32
    guest_address: int = layout.VMCLOCK
    inner: VmClockPage = _COLD_PAGE

    def check(self) -> None:
        """SnapshotError naming the field that is out of range."""
        size = layout.VMCLOCK_SIZE
        place = Place(self.guest_address, size, size, self.gsi)
        place.check("vmclock", "guest_address")
        self.inner.pack()
