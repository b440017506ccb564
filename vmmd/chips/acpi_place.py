"""Where a chip that the guest knows by ACPI alone may be."""

from __future__ import annotations

from vmmd.boot.layout import GSI_FIRST, GSI_LAST, RSDP, SYSTEM_MEM_START
from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """``size`` bytes of guest memory, aligned to ``align``, and an interrupt."""

    address: int
    size: int
    align: int
    gsi: int

    def check(self, kind: str, address_field: str) -> None:
        """SnapshotError naming the field of the record ``kind`` that is wrong."""
        end = self.address + self.size
        if not SYSTEM_MEM_START <= self.address <= end <= RSDP:
            raise SnapshotError(
                f"{kind}: {address_field} {self.address:#x} is not in system memory"
            )
        if self.address % self.align:
            raise SnapshotError(
                f"{kind}: {address_field} {self.address:#x} is not aligned"
            )
        if not GSI_FIRST <= self.gsi <= GSI_LAST:
            raise SnapshotError(f"{kind}: gsi {self.gsi} is out of range")
