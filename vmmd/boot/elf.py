"""ELF kernels: vmlinux, entered by PVH if it says where, else in 64-bit mode.

The checks, their order and their words are those of rust-vmm's linux-loader;
three more are vmmd's own: the machine, bss inside memory, and nothing below
1 MiB, where the boot tables are.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.boot.image import (
    Entry,
    FileSegment,
    Image,
    in_memory,
    kernel_error,
    read,
    too_large,
)
from vmmd.boot.layout import HIMEM_START, PVH_START_INFO, ZERO_PAGE
from vmmd.boot.pvh import find_entry
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.boot.image import BootError, Regions, Source

MAGIC = b"\x7fELF"

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
_PT_NOTE = 4
_LITTLE_ENDIAN = 1
_EM_X86_64 = 62
_MACHINES = {3: "i386", 20: "PowerPC", 40: "arm", 183: "arm64", 243: "RISC-V"}
# As far as a file of ext4 can be sought; what points beyond this is no offset.
_SEEK_MAX = 1 << 44
# A note segment is a few hundred bytes; what lies beyond this is not a kernel's.
_NOTES_MAX = 1 << 20
_INITRD_MAX = (1 << 32) - 1  # ramdisk_image has 32 bits


@dataclass(frozen=True, slots=True)
class _Phdr:
    """A program header, fields by their ELF names."""

    p_type: int
    p_offset: int
    p_paddr: int
    p_filesz: int
    p_memsz: int


def load(source: Source, regions: Regions) -> Image:
    """Plan an ELF kernel. BootError in linux-loader's words."""
    raw = read(source, 0, _EHDR.size)
    if len(raw) < _EHDR.size:
        raise _error("Unable to read elf header", "file is empty or cut short")
    entry, phoff, phnum = _header(raw)
    headers = _program_headers(source, phoff, phnum)
    loads = [h for h in headers if h.p_type == _PT_LOAD and h.p_filesz]
    pvh = None
    for header in headers:
        if header.p_type == _PT_NOTE and pvh is None:
            pvh = _pvh_entry(source, header)
        elif header in loads:
            _check(header, source.size, regions)
    if not loads:
        raise _error("Unable to read kernel image", "file has nothing to load")
    return Image(
        tuple(FileSegment(h.p_offset, h.p_paddr, h.p_filesz) for h in loads),
        Entry("linux64", entry, ZERO_PAGE) if pvh is None else pvh,
        tuple((h.p_paddr, max(h.p_memsz, h.p_filesz)) for h in loads),
        _INITRD_MAX,
    )


def _header(raw: bytes) -> tuple[int, int, int]:
    """``e_entry, e_phoff, e_phnum`` of a checked ELF header."""
    fields: tuple[bytes, int, int, int, int, int, int, int, int, int, int] = (
        _EHDR.unpack(raw)[:11]
    )
    ident, _, machine, _, entry, phoff, _, _, _, phentsize, phnum = fields
    if ident[5] != _LITTLE_ENDIAN:
        raise _error(
            "Trying to load big-endian binary on little-endian machine",
            "is for a big-endian machine: give one built for x86_64",
        )
    if machine in _MACHINES:
        raise kernel_error(
            f"the ELF kernel is for {_MACHINES[machine]}, this machine is x86_64",
            f"is built for {_MACHINES[machine]}: give one built for x86_64",
        )
    if phentsize != _PHDR.size:
        raise _error(
            "Invalid program header size",
            "is no 64-bit ELF file: give an x86_64 vmlinux",
        )
    if phoff < _EHDR.size:
        raise _error("Invalid program header offset", _DAMAGED)
    if entry < HIMEM_START:
        raise _error(
            "Invalid entry address",
            f"starts at {entry:#x}, below 1 MiB: an x86_64 vmlinux starts above",
        )
    return entry, phoff, phnum


def _program_headers(source: Source, phoff: int, phnum: int) -> list[_Phdr]:
    _check_seek(phoff, "program header")
    raw = read(source, phoff, phnum * _PHDR.size)
    if len(raw) < phnum * _PHDR.size:
        raise _error("Unable to read program header", _CUT_SHORT)
    headers = []
    for fields in _PHDR.iter_unpack(raw):
        p_type, _, offset, _, paddr, filesz, memsz, _ = fields
        headers.append(_Phdr(p_type, offset, paddr, filesz, memsz))
    return headers


def _check(header: _Phdr, file_size: int, regions: Regions) -> None:
    if header.p_paddr < HIMEM_START:
        raise _error(
            "Invalid Program Header Address",
            f"has a segment at {header.p_paddr:#x}, below 1 MiB: an x86_64 vmlinux"
            " has none there",
        )
    _check_seek(header.p_offset, "kernel start")
    if header.p_offset + header.p_filesz > file_size:
        raise _error("Unable to read kernel image", _CUT_SHORT)
    end = header.p_paddr + max(header.p_memsz, header.p_filesz)
    if not in_memory(header.p_paddr, header.p_filesz, regions):
        hint = too_large(end, regions).hint.removeprefix("the kernel ")
        raise _error("Unable to read kernel image", hint)
    if not in_memory(header.p_paddr, end - header.p_paddr, regions):
        raise too_large(end, regions)


def _pvh_entry(source: Source, header: _Phdr) -> Entry | None:
    _check_seek(header.p_offset, "note header")
    size = min(header.p_filesz, _NOTES_MAX)
    notes = read(source, header.p_offset, size)
    if len(notes) < size:
        raise _error("Unable to read note header", _CUT_SHORT)
    pvh = find_entry(notes)
    return None if pvh is None else Entry("pvh", pvh, PVH_START_INFO)


def _check_seek(offset: int, what: str) -> None:
    if offset > _SEEK_MAX:
        raise _error(f"Unable to seek to {what}", _DAMAGED)


_CUT_SHORT = "file is cut short: copy it again"
_DAMAGED = "file is damaged: copy it again"


def _error(what: str, hint: str) -> BootError:
    return kernel_error(f"failed to load ELF kernel image: Kernel Loader: {what}", hint)
