"""The MP table: processors and interrupts for kernels that do without ACPI.

Intel's MultiProcessor Specification 1.4. It stands at the start of the EBDA,
where kernels look for it.
"""

from __future__ import annotations

import struct

from vmmd.boot.checksum import checksummed
from vmmd.boot.layout import GSI_LAST, IOAPIC, LOCAL_APIC, SYSTEM_MEM_START

_POINTER = struct.Struct("<4sIBBBBBBBB")
_TABLE = struct.Struct("<4sHBB8s12sIHHIHBB")
_PROCESSOR, _BUS, _IOAPIC, _INTSRC, _LINTSRC = range(5)

_SPEC = 4
_APIC_VERSION = 0x14
_ENABLED, _BOOTSTRAP = 1, 2
_SIGNATURE = 0x600
_FEATURES = 0x201  # APIC, FPU
_INT, _NMI, _EXTINT = 0, 1, 3
_ALL_APICS = 0xFF


def size(vcpu_count: int) -> int:
    """Bytes that :func:`mptable` takes from SYSTEM_MEM_START on."""
    return sum(len(data) for _, data in mptable(vcpu_count))


def mptable(vcpu_count: int) -> tuple[tuple[int, bytes], ...]:
    """The floating pointer and the table behind it, as ``(gpa, bytes)``."""
    entries = [
        *(_processor(index) for index in range(vcpu_count)),
        struct.pack("<BB6s", _BUS, 0, b"ISA   "),
        struct.pack("<BBBBI", _IOAPIC, vcpu_count + 1, _APIC_VERSION, 1, IOAPIC),
        *(_isa_interrupt(irq, vcpu_count + 1) for irq in range(GSI_LAST + 1)),
        struct.pack("<BBHBBBB", _LINTSRC, _EXTINT, 0, 0, 0, 0, 0),
        struct.pack("<BBHBBBB", _LINTSRC, _NMI, 0, 0, 0, _ALL_APICS, 1),
    ]
    table = _table(entries)
    at = SYSTEM_MEM_START + _POINTER.size
    pointer = _POINTER.pack(b"_MP_", at, 1, _SPEC, 0, 0, 0, 0, 0, 0)
    return ((SYSTEM_MEM_START, checksummed(pointer, 10)), (at, table))


def _table(entries: list[bytes]) -> bytes:
    body = b"".join(entries)
    header = _TABLE.pack(
        b"PCMP",
        _TABLE.size + len(body),
        _SPEC,
        0,
        b"FC      ",
        b"000000000000",
        0,
        0,
        len(entries),
        LOCAL_APIC,
        0,
        0,
        0,
    )
    return checksummed(header + body, 7)


def _processor(index: int) -> bytes:
    flags = _ENABLED | (_BOOTSTRAP if index == 0 else 0)
    return struct.pack(
        "<BBBBIIII",
        _PROCESSOR,
        index,
        _APIC_VERSION,
        flags,
        _SIGNATURE,
        _FEATURES,
        0,
        0,
    )


def _isa_interrupt(irq: int, ioapic_id: int) -> bytes:
    return struct.pack("<BBHBBBB", _INTSRC, _INT, 0, 0, irq, ioapic_id, irq)
