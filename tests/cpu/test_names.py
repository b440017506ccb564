"""Names of registers, against the offsets of the manuals."""

from __future__ import annotations

import dataclasses

import pytest

from vmmd.cpu.fpu import Xsave
from vmmd.cpu.lapic import APIC_LVT0, DELIVERY_EXTINT, reset_lapic
from vmmd.cpu.names import lapic_registers, msr_name, xsave_registers


def test_lapic_registers() -> None:
    lapic = reset_lapic(3).with_delivery(APIC_LVT0, DELIVERY_EXTINT)
    shown = lapic_registers(lapic.set(0x270, 1 << 5).set(0x390, 77))
    assert shown["id"] == 3 << 24
    assert shown["version"] == 0x5_0014
    assert (shown["lvt0"], shown["lvt1"]) == (0x700, 1 << 16)
    assert (shown["irr7"], shown["irr6"]) == (1 << 5, 0)
    assert shown["timer_current_count"] == 77


def test_xsave_registers() -> None:
    region = bytearray(Xsave().region)
    region[160 + 16 * 15] = 9
    shown = xsave_registers(dataclasses.replace(Xsave(), region=bytes(region)))
    assert (shown["fcw"], shown["mxcsr"], shown["xstate_bv"]) == (0x37F, 0x1F80, 3)
    assert (shown["xmm15"], shown["xmm14"]) == (9, 0)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0x10, "tsc"),
        (0x6E0, "tsc_deadline"),
        (0x176, "sysenter_eip"),
        (0x203, "mtrr_physmask1"),
        (0x2FF, "mtrr_def_type"),
        (0x405, "mc1_status"),
        (0xC000_0080, "efer"),
        (0xC000_0102, "kernel_gs_base"),
        (0x4B56_4D01, "kvm_system_time"),
        (0x1234, "0x1234"),
    ],
)
def test_msrs(index: int, name: str) -> None:
    assert msr_name(index) == name
