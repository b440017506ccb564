"""The PVH protocol: an entry named by an ELF note, and hvm_start_info.

Xen's public/arch-x86/hvm/start_info.h, version 1, and Linux's XEN_ELFNOTE_*.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.boot.image import kernel_error
from vmmd.boot.layout import CMDLINE, PVH_MEMMAP, PVH_MODLIST, PVH_START_INFO, RSDP

if TYPE_CHECKING:
    from vmmd.boot.e820 import Range
    from vmmd.boot.image import FileSegment

_NOTE = struct.Struct("<III")
_PHYS32_ENTRY = 18
_XEN = b"Xen\0"

_MAGIC = 0x336E_C578
_START_INFO = struct.Struct("<IIIIQQQQII")
_MODULE = struct.Struct("<QQQQ")
_MEMMAP = struct.Struct("<QQII")


def find_entry(notes: bytes) -> int | None:
    """The 32-bit entry that a note segment names, None if it names none.

    BootError if the note is there and holds no address.
    """
    at = 0
    while at + _NOTE.size <= len(notes):
        namesz, descsz, kind = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        desc_at = name_at + _align(namesz)
        if kind == _PHYS32_ENTRY and notes[name_at : name_at + namesz] == _XEN:
            return _address(notes[desc_at : desc_at + min(descsz, 8)])
        at = desc_at + _align(descsz)
    return None


def _address(desc: bytes) -> int:
    if len(desc) < 4:
        raise kernel_error(
            "failed to load ELF kernel image: Kernel Loader: Invalid PVH note header",
            "has a PVH note without an address: rebuild it, or remove the note"
            " (objcopy --remove-section .notes)",
        )
    return int.from_bytes(desc[:4], "little")


def start_info(
    memory_map: tuple[Range, ...], initrd: FileSegment | None
) -> tuple[tuple[int, bytes], ...]:
    """hvm_start_info, its memory map and its one module, as ``(gpa, bytes)``."""
    info = _START_INFO.pack(
        _MAGIC,
        1,
        0,
        1 if initrd else 0,
        PVH_MODLIST if initrd else 0,
        CMDLINE,
        RSDP,
        PVH_MEMMAP,
        len(memory_map),
        0,
    )
    entries = b"".join(_MEMMAP.pack(r.gpa, r.size, r.kind, 0) for r in memory_map)
    writes = ((PVH_START_INFO, info), (PVH_MEMMAP, entries))
    if initrd is None:
        return writes
    return (*writes, (PVH_MODLIST, _MODULE.pack(initrd.gpa, initrd.size, 0, 0)))


def _align(size: int) -> int:
    return (size + 3) & ~3
