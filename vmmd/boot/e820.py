"""The memory map that a guest is told, by the zero page or by PVH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot.layout import (
    HIMEM_START,
    PCI_MMCONFIG_SIZE,
    PCI_MMCONFIG_START,
    SYSTEM_MEM_SIZE,
    SYSTEM_MEM_START,
)
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.boot.image import Regions

RAM = 1
RESERVED = 2


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` bytes at ``gpa`` are RAM or RESERVED."""

    gpa: int
    size: int
    kind: int


def memory_map(regions: Regions) -> tuple[Range, ...]:
    """Low memory, what holds the tables, and each region from 1 MiB up."""
    high = (
        Range(max(gpa, HIMEM_START), gpa + size - max(gpa, HIMEM_START), RAM)
        for gpa, size in regions
        if gpa + size > HIMEM_START
    )
    return (
        Range(0, SYSTEM_MEM_START, RAM),
        Range(SYSTEM_MEM_START, SYSTEM_MEM_SIZE, RESERVED),
        Range(PCI_MMCONFIG_START, PCI_MMCONFIG_SIZE, RESERVED),
        *high,
    )
