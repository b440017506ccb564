"""ACPI tables: sums, pointers, flags, and what Intel's own tools make of them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import acpi, layout
from vmmd.boot.mptable import size as mptable_size

if TYPE_CHECKING:
    from pathlib import Path


def parsed(cpus: int, devices: int) -> dict[int, bytes]:
    return dict(acpi.tables(cpus, layout.virtio_slots(devices)))


def u64(table: bytes, at: int) -> int:
    return int.from_bytes(table[at : at + 8], "little")


@given(st.integers(1, 32), st.integers(0, 17))
def test_everything_is_found_from_the_rsdp(cpus: int, devices: int) -> None:
    at = parsed(cpus, devices)
    rsdp = at[layout.RSDP]
    assert rsdp[:8] == b"RSD PTR "
    assert sum(rsdp[:20]) % 256 == sum(rsdp) % 256 == 0
    xsdt = at[u64(rsdp, 24)]
    fadt, madt = (at[gpa] for (gpa,) in struct.iter_unpack("<Q", xsdt[36:]))
    dsdt = at[u64(fadt, 140)]
    signatures = [table[:4] for table in (xsdt, fadt, madt, dsdt)]
    assert signatures == [b"XSDT", b"FACP", b"APIC", b"DSDT"]
    for table in (xsdt, fadt, madt, dsdt):
        assert int.from_bytes(table[4:8], "little") == len(table)
        assert sum(table) % 256 == 0
        assert table[10:16] == b"FIRECK"


@given(st.integers(1, 32), st.integers(0, 17))
def test_tables_lie_behind_the_mp_table(cpus: int, devices: int) -> None:
    end = layout.SYSTEM_MEM_START + mptable_size(cpus)
    for gpa, data in acpi.tables(cpus, layout.virtio_slots(devices))[:-1]:
        assert gpa >= end
        assert gpa % 16 == 0
        end = gpa + len(data)
    assert end <= layout.VMCLOCK < layout.VMGENID < layout.RSDP


def test_fadt_says_what_there_is_and_what_not() -> None:
    fadt = acpi.fadt(0xA0000)
    assert (len(fadt), fadt[8], fadt[131]) == (276, 6, 5)
    assert int.from_bytes(fadt[109:111], "little") == 1 << 1 | 1 << 2 | 1 << 5
    flags = int.from_bytes(fadt[112:116], "little")
    assert flags == 1 << 20 | 1 << 10 | 1 << 5 | 1 << 4
    byte_port = (1, 8, 0, 1)
    assert struct.unpack("<BBBBQ", fadt[116:128]) == (*byte_port, 0x64)
    assert fadt[128] == 0xFE
    assert struct.unpack("<BBBBQ", fadt[244:256]) == (*byte_port, 0x600)
    assert struct.unpack("<BBBBQ", fadt[256:268]) == (*byte_port, 0x601)
    assert fadt[268:276] == b"FIRECKVM"


def test_madt_has_every_processor() -> None:
    madt = acpi.madt(3)
    assert struct.unpack("<II", madt[36:44]) == (0xFEE0_0000, 0)
    assert struct.unpack("<BBBBII", madt[44:56]) == (1, 12, 0, 0, 0xFEC0_0000, 0)
    cpus = list(struct.iter_unpack("<BBBBI", madt[56:]))
    assert cpus == [(0, 8, i, i, 1) for i in range(3)]


def test_dsdt_names_each_device_s_registers_and_interrupt() -> None:
    dsdt = acpi.dsdt(layout.virtio_slots(2))
    assert dsdt.count(b"LNRO0005") == 2
    assert b"V000" in dsdt
    assert b"V001" in dsdt
    assert bytes.fromhex("86 09 00 01 00 20 00 c0 00 10 00 00") in dsdt
    assert bytes.fromhex("89 06 00 03 01 06 00 00 00") in dsdt
    assert b"_S5_\x12\x07\x04\x0a\x05\0\0\0" in dsdt


def test_dsdt_names_the_legacy_devices() -> None:
    com1, ps2 = acpi.dsdt(()).split(b"PS2_")
    assert b"COM1" in com1
    assert bytes.fromhex("47 01 f8 03 f8 03 01 08 89 06 00 03 01 04") in com1
    ports = bytes.fromhex("47 01 60 00 60 00 01 01 47 01 64 00 64 00 01 01")
    assert ports + bytes.fromhex("89 06 00 03 01 01 00 00 00 79 00") in ps2


@pytest.mark.parametrize("devices", [0, 17])
def test_dsdt_tells_vmgenid_and_vmclock_of_their_interrupts(devices: int) -> None:
    dsdt = acpi.dsdt(layout.virtio_slots(devices))
    vgen, vclk = 5 + devices, 6 + devices
    assert b"_HID\x0dVMGENCTR\0" in dsdt
    assert b"_CID\x0dVM_Gen_Counter\0" in dsdt
    address = layout.VMGENID.to_bytes(4, "little")
    assert b"\x08ADDR\x12\x08\x02\x0c" + address + b"\0" in dsdt
    assert b"_HID\x0dAMZNC10C\0" in dsdt
    page = [layout.VMCLOCK, layout.VMCLOCK + 4095, 0, 4096]
    window = b"".join(value.to_bytes(8, "little") for value in page)
    assert bytes.fromhex("8a 2b 00 00 0c 02") + bytes(8) + window in dsdt
    head, ged = dsdt.split(b"GED_")
    assert b"_HID\x0dACPI0013\0" in ged
    for gsi, name in ((vgen, b"VGEN"), (vclk, b"VCLK")):
        assert bytes.fromhex("89 06 00 03 01") + gsi.to_bytes(4, "little") in ged
        equal = bytes.fromhex("93 68 0a") + bytes([gsi])
        assert equal + b"\x86" + name + b"\x0a\x80" in ged
        assert name in head


def iasl(*args: str, cwd: Path) -> str:
    """Run iasl; missing, it is a loud skip, and a failure in CI."""
    if shutil.which("iasl") is None:
        reason = "iasl is not installed (apt install acpica-tools)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        ("iasl", *args),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("devices", [0, 1, 17])
def test_the_dsdt_survives_disassembly_and_compilation(
    devices: int, tmp_path: Path
) -> None:
    dsdt = acpi.dsdt(layout.virtio_slots(devices))
    (tmp_path / "dsdt.aml").write_bytes(dsdt)
    said = iasl("-d", "dsdt.aml", cwd=tmp_path)
    assert "error" not in said.lower().replace("acpi error logs", "")
    assert "warning" not in said.lower()
    assert (tmp_path / "dsdt.dsl").read_text().count("LNRO0005") == devices
    # Message 6035: "VMGENCTR" is no id of the ACPI registry, and is what drivers
    # look for.
    said = iasl("-vw", "6035", "-p", "again", "dsdt.dsl", cwd=tmp_path)
    assert "0 Errors, 0 Warnings, 0 Remarks" in said
    assert (tmp_path / "again.aml").read_bytes()[36:] == dsdt[36:]


@pytest.mark.parametrize(
    ("name", "table", "lines"),
    [
        (
            "facp",
            acpi.fadt(0xA0000),
            ["Hardware Reduced (V5) : 1", "CMOS RTC Not Present (V5) : 1"],
        ),
        ("apic", acpi.madt(4), ["Processor Enabled : 1"]),
        ("xsdt", acpi.xsdt(0xA0000, 0xA0200), ["00000000000A0200"]),
    ],
)
def test_data_tables_survive_disassembly(
    name: str, table: bytes, lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / f"{name}.aml").write_bytes(table)
    said = iasl("-d", f"{name}.aml", cwd=tmp_path)
    assert "warning" not in said.lower()
    text = (tmp_path / f"{name}.dsl").read_text()
    for line in lines:
        assert line in text
    assert "checksum" not in text.lower().replace("checksum : ", "")
