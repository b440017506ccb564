"""ACPI tables: RSDP, XSDT, FADT, MADT and a DSDT of this machine's devices.

ACPI 6.5, hardware-reduced. The machine has no PM1 block, no RTC and no VGA, and
says so: a guest that is not told waits seconds for a clock that never answers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.boot import aml
from vmmd.boot.checksum import checksummed
from vmmd.boot.layout import (
    COM1_GSI,
    COM1_PORT,
    COM1_PORTS,
    GSI_FIRST,
    I8042_COMMAND_PORT,
    I8042_DATA_PORT,
    I8042_RESET,
    IOAPIC,
    KEYBOARD_GSI,
    LOCAL_APIC,
    MMIO_SLOT_SIZE,
    RSDP,
    S5_SLEEP_TYPE,
    SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT,
    SYSTEM_MEM_START,
    VMCLOCK,
    VMCLOCK_SIZE,
    VMGENID,
    acpi_gsis,
)
from vmmd.boot.mptable import size as mptable_size

if TYPE_CHECKING:
    from vmmd.boot.layout import MmioSlot

_OEM_ID = b"FIRECK"
_CREATOR_ID = b"FCAT"
_HEADER = struct.Struct("<4sIBB6s8sI4sI")
_ALIGN = 16

# FADT flags (table 5.10) and IA-PC boot architecture flags (table 5.11).
_PWR_BUTTON = 1 << 4  # "is a control method device or absent"
_SLP_BUTTON = 1 << 5
_RESET_REG_SUP = 1 << 10
_HW_REDUCED_ACPI = 1 << 20
_8042 = 1 << 1
_VGA_NOT_PRESENT = 1 << 2
_CMOS_RTC_NOT_PRESENT = 1 << 5


def tables(
    vcpu_count: int, slots: tuple[MmioSlot, ...]
) -> tuple[tuple[int, bytes], ...]:
    """All tables as ``(gpa, bytes)``, behind the MP table; the RSDP at its place."""
    start = _align(SYSTEM_MEM_START + mptable_size(vcpu_count))
    dsdt_at = (start, dsdt(slots))
    fadt_at = _behind(dsdt_at, fadt(dsdt_at[0]))
    madt_at = _behind(fadt_at, madt(vcpu_count))
    xsdt_at = _behind(madt_at, xsdt(fadt_at[0], madt_at[0]))
    return (dsdt_at, fadt_at, madt_at, xsdt_at, (RSDP, rsdp(xsdt_at[0])))


def dsdt(slots: tuple[MmioSlot, ...]) -> bytes:
    r"""``\_S5`` and, under ``\_SB``, each device: virtio-mmio, COM1 and the i8042.

    Also VMGenID and VMClock, and who tells them of their interrupts.
    """
    devices = [_virtio(slot) for slot in slots]
    vmgenid_gsi, vmclock_gsi = acpi_gsis(len(slots))
    events = {vmgenid_gsi: "VGEN", vmclock_gsi: "VCLK"}
    body = aml.name(
        "_S5",
        aml.package(*(aml.integer(value) for value in (S5_SLEEP_TYPE, 0, 0, 0))),
    ) + aml.scope("_SB", *devices, _com1(), _ps2(), _vgen(), _vclk(), _ged(events))
    # Revision 2: integers have 64 bits.
    return _sdt(b"DSDT", 2, b"FCVMDSDT", body)


def fadt(dsdt_gpa: int) -> bytes:
    """Revision 6.5. All that hardware-reduced machines ignore is zero."""
    body = bytearray(276 - _HEADER.size)
    for offset, form, value in (
        (109, "<H", _8042 | _VGA_NOT_PRESENT | _CMOS_RTC_NOT_PRESENT),
        (112, "<I", _HW_REDUCED_ACPI | _RESET_REG_SUP | _PWR_BUTTON | _SLP_BUTTON),
        (116, "<12s", _port(I8042_COMMAND_PORT)),
        (128, "<B", I8042_RESET),
        (131, "<B", 5),  # the minor revision
        (140, "<Q", dsdt_gpa),
        (244, "<12s", _port(SLEEP_CONTROL_PORT)),
        (256, "<12s", _port(SLEEP_STATUS_PORT)),
        (268, "<8s", b"FIRECKVM"),
    ):
        struct.pack_into(form, body, offset - _HEADER.size, value)
    return _sdt(b"FACP", 6, b"FCVMFADT", bytes(body))


def madt(vcpu_count: int) -> bytes:
    """One IOAPIC and a local APIC per vCPU, each enabled."""
    ioapic = struct.pack("<BBBBII", 1, 12, 0, 0, IOAPIC, 0)
    cpus = (struct.pack("<BBBBI", 0, 8, i, i, 1) for i in range(vcpu_count))
    head = struct.pack("<II", LOCAL_APIC, 0)
    return _sdt(b"APIC", 6, b"FCVMMADT", head + ioapic + b"".join(cpus))


def xsdt(*tables_at: int) -> bytes:
    """Where the FADT and the MADT are."""
    return _sdt(b"XSDT", 1, b"FCMVXSDT", struct.pack(f"<{len(tables_at)}Q", *tables_at))


def rsdp(xsdt_gpa: int) -> bytes:
    """The root pointer; it has two checksums, one over its first 20 bytes."""
    first = checksummed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, _OEM_ID, 2, 0), 8)
    return checksummed(first + struct.pack("<IQB3s", 36, xsdt_gpa, 0, bytes(3)), 32)


def _virtio(slot: MmioSlot) -> bytes:
    index = slot.gsi - GSI_FIRST
    return aml.device(
        f"V{index:03}",
        aml.name("_HID", aml.string("LNRO0005")),
        aml.name("_UID", aml.integer(index)),
        aml.name("_CCA", aml.integer(1)),
        aml.name(
            "_CRS",
            aml.resources(
                aml.memory32_fixed(slot.base, MMIO_SLOT_SIZE), aml.interrupt(slot.gsi)
            ),
        ),
    )


def _com1() -> bytes:
    return aml.device(
        "COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_DDN", aml.string("COM1")),
        aml.name(
            "_CRS",
            aml.resources(aml.io_ports(COM1_PORT, COM1_PORTS), aml.interrupt(COM1_GSI)),
        ),
    )


def _ps2() -> bytes:
    return aml.device(
        "PS2",
        aml.name("_HID", aml.eisa_id("PNP0303")),
        aml.name("_STA", aml.integer(0x0F)),
        aml.name(
            "_CRS",
            aml.resources(
                aml.io_ports(I8042_DATA_PORT, 1),
                aml.io_ports(I8042_COMMAND_PORT, 1),
                aml.interrupt(KEYBOARD_GSI),
            ),
        ),
    )


def _vgen() -> bytes:
    address = (aml.integer(VMGENID & 0xFFFF_FFFF), aml.integer(VMGENID >> 32))
    return aml.device(
        "VGEN",
        aml.name("_HID", aml.string("VMGENCTR")),
        aml.name("_CID", aml.string("VM_Gen_Counter")),
        aml.name("_DDN", aml.string("VM_Gen_Counter")),
        aml.name("ADDR", aml.package(*address)),
    )


def _vclk() -> bytes:
    return aml.device(
        "VCLK",
        aml.name("_HID", aml.string("AMZNC10C")),
        aml.name("_CID", aml.string("VMCLOCK")),
        aml.name("_DDN", aml.string("VMCLOCK")),
        aml.name("_STA", aml.integer(0x0F)),
        aml.name("_CRS", aml.resources(aml.memory64(VMCLOCK, VMCLOCK_SIZE))),
    )


def _ged(events: dict[int, str]) -> bytes:
    """The Generic Event Device: passes interrupts on as notifications."""
    tell = (aml.if_argument_is(i, aml.notify(x, 0x80)) for i, x in events.items())
    return aml.device(
        "GED",
        aml.name("_HID", aml.string("ACPI0013")),
        aml.name("_CRS", aml.resources(*(aml.interrupt(gsi) for gsi in events))),
        aml.method("_EVT", *tell),
    )


def _port(port: int) -> bytes:
    """A generic address: one byte-wide I/O port."""
    return struct.pack("<BBBBQ", 1, 8, 0, 1, port)


def _sdt(signature: bytes, revision: int, table_id: bytes, body: bytes) -> bytes:
    header = _HEADER.pack(
        signature,
        _HEADER.size + len(body),
        revision,
        0,
        _OEM_ID,
        table_id,
        0,
        _CREATOR_ID,
        0x2024_0119,
    )
    return checksummed(header + body, 9)


def _align(gpa: int) -> int:
    return -(-gpa // _ALIGN) * _ALIGN


def _behind(previous: tuple[int, bytes], table: bytes) -> tuple[int, bytes]:
    """Where ``table`` goes, given what was placed before it."""
    gpa, data = previous
    return (_align(gpa + len(data)), table)
