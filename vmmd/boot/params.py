"""The zero page: Linux's struct boot_params, for the 64-bit entry.

Documentation/arch/x86/zero-page.rst and boot.rst.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.boot.layout import CMDLINE, PAGE_SIZE, RSDP

if TYPE_CHECKING:
    from vmmd.boot.e820 import Range
    from vmmd.boot.image import FileSegment

_ACPI_RSDP_ADDR = 0x070
_E820_ENTRIES = 0x1E8
_SETUP_HEADER = 0x1F1
_BOOT_FLAG = 0x1FE
_HEADER = 0x202
_TYPE_OF_LOADER = 0x210
_RAMDISK_IMAGE = 0x218
_CMD_LINE_PTR = 0x228
_KERNEL_ALIGNMENT = 0x230
_CMDLINE_SIZE = 0x238
_E820_TABLE = 0x2D0

_LOADER_UNDEFINED = 0xFF
# What a vmlinux, which has no header of its own, is given.
_ELF_ALIGNMENT = 0x0100_0000


def zero_page(
    setup_header: bytes,
    memory_map: tuple[Range, ...],
    cmdline_size: int,
    initrd: FileSegment | None,
) -> bytes:
    """boot_params, one page.

    ``setup_header`` is a bzImage's from 0x1F1 on, or empty. ``cmdline_size``
    counts the NUL.
    """
    page = bytearray(PAGE_SIZE)
    struct.pack_into("<I", page, _KERNEL_ALIGNMENT, _ELF_ALIGNMENT)
    page[_SETUP_HEADER : _SETUP_HEADER + len(setup_header)] = setup_header
    struct.pack_into("<H", page, _BOOT_FLAG, 0xAA55)
    struct.pack_into("<4s", page, _HEADER, b"HdrS")
    struct.pack_into("<B", page, _TYPE_OF_LOADER, _LOADER_UNDEFINED)
    struct.pack_into("<I", page, _CMD_LINE_PTR, CMDLINE)
    struct.pack_into("<I", page, _CMDLINE_SIZE, cmdline_size)
    struct.pack_into("<Q", page, _ACPI_RSDP_ADDR, RSDP)
    if initrd:
        struct.pack_into("<II", page, _RAMDISK_IMAGE, initrd.gpa, initrd.size)
    struct.pack_into("<B", page, _E820_ENTRIES, len(memory_map))
    for i, entry in enumerate(memory_map):
        struct.pack_into(
            "<QQI", page, _E820_TABLE + 20 * i, entry.gpa, entry.size, entry.kind
        )
    return bytes(page)
