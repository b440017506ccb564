"""Kernels for tests: ELF files and bzImages made to order, and a Source of bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MIB = 1 << 20
PVH_ENTRY = 0x100_0200


@dataclass(frozen=True)
class BytesSource:
    """A file that is a bytes object."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def pread(self, length: int, offset: int) -> bytes:
        return self.data[offset : offset + length]


class Unreadable:
    """A directory: it has a size, and every read fails."""

    size = 4096

    def pread(self, length: int, offset: int) -> bytes:
        raise IsADirectoryError(21, "Is a directory", str((length, offset)))


@dataclass(frozen=True)
class Load:
    """A PT_LOAD: ``data`` at ``paddr``, ``memsz`` bytes in memory."""

    paddr: int
    data: bytes
    memsz: int = 0


def note(name: bytes, kind: int, desc: bytes) -> bytes:
    """One ELF note, its fields padded to four bytes."""
    pad = -len(name) % 4, -len(desc) % 4
    head = struct.pack("<III", len(name), len(desc), kind)
    return head + name + bytes(pad[0]) + desc + bytes(pad[1])


PVH_NOTE = note(b"GNU\0", 3, bytes(20)) + note(
    b"Xen\0", 18, PVH_ENTRY.to_bytes(8, "little")
)


def elf(
    *loads: Load,
    entry: int = MIB,
    notes: bytes = b"",
    machine: int = 62,
    ident: bytes = b"\x7fELF\x02\x01\x01",
    phentsize: int = 56,
) -> bytes:
    """A 64-bit ELF executable of ``loads``, with a PT_NOTE if there are notes."""
    parts = [(1, load.paddr, load.data, load.memsz or len(load.data)) for load in loads]
    if notes:
        parts.append((4, 0, notes, len(notes)))
    at = 64 + 56 * len(parts)
    headers, bodies = [], []
    for kind, paddr, data, memsz in parts:
        headers.append(
            struct.pack(
                "<IIQQQQQQ", kind, 7, at, paddr, paddr, len(data), memsz, 0x1000
            )
        )
        bodies.append(data)
        at += len(data)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(ident, 2, machine, 1, entry, 64, 0, 0, 64, phentsize, len(parts), 0, 0, 0),
    )
    return head + b"".join(headers) + b"".join(bodies)


def pvh_elf() -> bytes:
    """An ELF kernel with a PVH note."""
    return elf(Load(MIB, b"\xf4" * 4096, 8192), notes=PVH_NOTE)


@dataclass(frozen=True)
class BzImage:
    """A bzImage's header fields (boot.rst's names) and payload size."""

    setup_sects: int = 4
    syssize: int = 0x100
    jump: int = 0x66
    version: int = 0x020F
    loadflags: int = 1
    code32_start: int = MIB
    initrd_addr_max: int = 0x7FFF_FFFF
    kernel_alignment: int = 2 * MIB
    relocatable_kernel: int = 1
    xloadflags: int = 0x7F
    pref_address: int = 16 * MIB
    init_size: int = 32 * MIB
    payload: int = 0x1000

    def build(self) -> bytes:
        setup = ((self.setup_sects or 4) + 1) * 512
        image = bytearray(setup + self.payload)
        for at, form, value in (
            (0x1F1, "<B", self.setup_sects),
            (0x1F4, "<I", self.syssize),
            (0x1FE, "<H", 0xAA55),
            (0x200, "<B", 0xEB),
            (0x201, "<B", self.jump),
            (0x202, "<4s", b"HdrS"),
            (0x206, "<H", self.version),
            (0x211, "<B", self.loadflags),
            (0x214, "<I", self.code32_start),
            (0x22C, "<I", self.initrd_addr_max),
            (0x230, "<I", self.kernel_alignment),
            (0x234, "<B", self.relocatable_kernel),
            (0x236, "<H", self.xloadflags),
            (0x238, "<I", 2047),
            (0x258, "<Q", self.pref_address),
            (0x260, "<I", self.init_size),
        ):
            struct.pack_into(form, image, at, value)
        image[setup:] = b"\xf4" * self.payload
        return bytes(image)
