"""What the boot processor finds set up: GDT, IDT and, in long mode, page tables."""

from __future__ import annotations

import struct
from typing import Literal

from vmmd.boot.layout import BOOT_GDT, BOOT_IDT, PDE, PDPTE, PML4

GDT_CODE, GDT_DATA, GDT_TSS = 1, 2, 3  # indices; a selector is the index times 8

_PRESENT_WRITABLE = 0x03
_PRESENT_WRITABLE_2MIB = 0x83


def descriptor(flags: int, base: int, limit: int) -> int:
    """A segment descriptor. ``flags``: access byte, and G, D, L, AVL in bits 12..15."""
    return (
        (base & 0xFF00_0000) << 32
        | (flags & 0xF0FF) << 40
        | (limit & 0x000F_0000) << 32
        | (base & 0x00FF_FFFF) << 16
        | (limit & 0x0000_FFFF)
    )


GDT = {
    "linux64": (
        descriptor(0, 0, 0),
        descriptor(0xA09B, 0, 0xFFFFF),
        descriptor(0xC093, 0, 0xFFFFF),
        descriptor(0x808B, 0, 0xFFFFF),
    ),
    "pvh": (
        descriptor(0, 0, 0),
        descriptor(0xC09B, 0, 0xFFFF_FFFF),
        descriptor(0xC093, 0, 0xFFFF_FFFF),
        descriptor(0x008B, 0, 0x67),
    ),
}
"""Per protocol: null, code, data, TSS."""


def boot_tables(protocol: Literal["linux64", "pvh"]) -> tuple[tuple[int, bytes], ...]:
    """``(gpa, bytes)`` of the tables that ``protocol`` is entered with.

    64-bit: the first GiB is mapped onto itself by 2 MiB pages.
    """
    writes = ((BOOT_GDT, struct.pack("<4Q", *GDT[protocol])), (BOOT_IDT, bytes(8)))
    if protocol == "pvh":
        return writes
    pages = ((i << 21) | _PRESENT_WRITABLE_2MIB for i in range(512))
    return (
        *writes,
        (PML4, struct.pack("<Q", PDPTE | _PRESENT_WRITABLE)),
        (PDPTE, struct.pack("<Q", PDE | _PRESENT_WRITABLE)),
        (PDE, struct.pack("<512Q", *pages)),
    )
