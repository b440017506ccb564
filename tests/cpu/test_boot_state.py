"""Where and how a kernel is entered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from vmmd.boot.image import Entry
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.cpuid import CpuidEntry
from vmmd.cpu.msrs import in_setting_order
from vmmd.cpu.topology import Topology

if TYPE_CHECKING:
    from vmmd.cpu.state import VcpuState

SUPPORTED = (CpuidEntry(function=0, eax=0xD), CpuidEntry(function=1))


LINUX = Entry("linux64", 0x100_0200, 0x7000)
PVH = Entry("pvh", 0x100_0C40, 0x6000)


def boot(entry: Entry, index: int = 0, count: int = 2) -> VcpuState:
    return boot_vcpu(Topology(index, count), SUPPORTED, entry)


def test_linux_is_entered_in_long_mode() -> None:
    state = boot(LINUX)
    regs, sregs = state.regs, state.sregs
    assert (regs.rip, regs.rsi, regs.rflags) == (0x100_0200, 0x7000, 2)
    assert regs.rsp == regs.rbp == 0x8FF0
    assert regs.rbx == 0
    assert (sregs.cr0, sregs.cr3, sregs.cr4) == (0x8000_0011, 0x9000, 0x20)
    assert sregs.efer == 0x500
    assert (sregs.cs.selector, sregs.cs.type, sregs.cs.l, sregs.cs.db) == (8, 11, 1, 0)
    assert (sregs.tr.selector, sregs.tr.type, sregs.tr.s) == (0x18, 11, 0)
    assert (sregs.gdt.base, sregs.gdt.limit) == (0x500, 31)
    assert (sregs.idt.base, sregs.idt.limit) == (0x520, 7)


def test_pvh_is_entered_in_protected_mode() -> None:
    state = boot(PVH)
    regs, sregs = state.regs, state.sregs
    assert (regs.rip, regs.rbx, regs.rflags) == (0x100_0C40, 0x6000, 2)
    assert (regs.rsi, regs.rsp) == (0, 0)
    assert (sregs.cr0, sregs.cr4, sregs.efer, sregs.cr3) == (0x11, 0, 0, 0)
    assert (sregs.cs.l, sregs.cs.db, sregs.cs.limit) == (0, 1, 0xFFFF_FFFF)
    assert (sregs.tr.limit, sregs.tr.g) == (0x67, 0)


@pytest.mark.parametrize("entry", [LINUX, PVH])
def test_data_segments_are_flat(entry: Entry) -> None:
    sregs = boot(entry).sregs
    for segment in (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        assert (segment.base, segment.limit, segment.selector) == (0, 0xFFFF_FFFF, 16)
        assert (segment.type, segment.present, segment.s, segment.dpl) == (3, 1, 1, 0)


def test_only_the_first_vcpu_runs() -> None:
    states = [boot(LINUX, index, 32) for index in range(32)]
    assert [state.mp_state.mp_state for state in states] == [0] + [1] * 31
    assert [state.sregs.apic_base for state in states] == [0xFEE0_0900] + [
        0xFEE0_0800
    ] * 31
    assert [state.lapic.get(0x20) >> 24 for state in states] == list(range(32))
    assert {state.regs for state in states} == {states[0].regs}


def test_local_interrupts() -> None:
    lapic = boot(LINUX).lapic
    assert (lapic.get(0x350), lapic.get(0x360)) == (0x700, 0x400)
    assert lapic.get(0x320) == lapic.get(0x370) == 1 << 16


def test_msrs_are_in_setting_order_and_caching_is_on() -> None:
    msrs = boot(LINUX).msrs
    assert msrs[0] == (0x10, 0)
    assert in_setting_order(msrs)[0] == msrs[0]
    assert dict(msrs)[0x2FF] == 0x806
    assert dict(msrs)[0x1A0] == 1


def test_every_part_packs() -> None:
    state = boot(LINUX)
    for part in (
        state.mp_state,
        state.regs,
        state.sregs,
        state.xsave,
        state.xcrs,
        state.debug_regs,
        state.lapic,
        state.vcpu_events,
    ):
        assert type(part).unpack(part.pack()) == part
    assert state.xsave.region[:2] == b"\x7f\x03"
    assert state.xsave.region[24:28] == b"\x80\x1f\0\0"
    assert replace(state, tsc_khz=1).tsc_khz == 1
