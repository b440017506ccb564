"""Records of registers: round trips, sizes, refusals."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.clock import ClockData
from vmmd.cpu.cpuid import CpuidEntry, pack_cpuid, unpack_cpuid, without_padding
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Fpu, Xcrs, Xsave
from vmmd.cpu.irqchip import IoapicState, PicState
from vmmd.cpu.lapic import APIC_LVT0, DELIVERY_EXTINT, Lapic, reset_lapic
from vmmd.cpu.msrs import (
    BOOT_MSRS,
    MSR_IA32_TSC,
    MSR_IA32_TSC_DEADLINE,
    chunks,
    in_setting_order,
    pack_msrs,
    unpack_msrs,
)
from vmmd.cpu.pit import PitChannel, PitState
from vmmd.cpu.registers import (
    DebugRegs,
    DescriptorTable,
    MpState,
    Regs,
    Segment,
    Sregs,
)

if TYPE_CHECKING:
    from tests.helpers.kvm_structs import KvmStruct

SIZES: dict[type[KvmStruct], int] = {
    Regs: 144,
    Sregs: 312,
    Segment: 24,
    DescriptorTable: 16,
    DebugRegs: 128,
    MpState: 4,
    Fpu: 416,
    Xcrs: 392,
    Xsave: 4096,
    Lapic: 1024,
    VcpuEvents: 64,
    CpuidEntry: 40,
    PitChannel: 24,
    PitState: 112,
    ClockData: 48,
    PicState: 16,
    IoapicState: 216,
}
U32 = st.integers(0, 0xFFFF_FFFF)
U64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
MSRS = st.lists(st.tuples(U32, U64), max_size=300).map(tuple)


@pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_what_is_unpacked_packs_to_itself(
    cls: type[KvmStruct], data: st.DataObject
) -> None:
    tile = data.draw(st.binary(min_size=1, max_size=80))
    raw = bytearray((tile * SIZES[cls])[: SIZES[cls]])
    if cls is Xcrs:
        raw[:4] = data.draw(st.integers(0, 16)).to_bytes(4, "little")
    item = cls.unpack(bytes(raw))
    again = cls.unpack(item.pack())
    assert again == item
    assert len(item.pack()) == SIZES[cls]


@pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)
def test_a_struct_of_another_size_is_refused(cls: type[KvmStruct]) -> None:
    with pytest.raises(ValueError, match=cls.__name__):
        cls.unpack(bytes(SIZES[cls] - 1))


@pytest.mark.parametrize(
    "item",
    [
        Regs(rax=1 << 64),
        Regs(rip=-1),
        Segment(type=256),
        DebugRegs(dr7=1 << 64),
        Fpu(fpr=b"short"),
        Fpu(xmm=bytes(257)),
        Xcrs(xcrs=((0, 1),) * 17),
        Xsave(region=bytes(4095)),
        Xsave(region=bytes(4097)),
        Lapic(regs=b""),
        VcpuEvents(exception_nr=300),
        CpuidEntry(function=1 << 32),
        PitChannel(gate=256),
        PitState(channels=(PitChannel(),) * 2),
        PitState(flags=1 << 32),
        ClockData(clock=1 << 64),
        PicState(elcr=256),
        IoapicState(redirtbl=()),
        IoapicState(irr=1 << 32),
    ],
    ids=repr,
)
def test_a_value_that_does_not_fit_is_refused(item: KvmStruct) -> None:
    with pytest.raises(ValueError, match=type(item).__name__):
        item.pack()


def test_the_field_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"Regs\.rip: "):
        Regs(rax=1, rip=1 << 64).pack()
    with pytest.raises(ValueError, match=r"PicState\.elcr: "):
        PicState(irr=255, elcr=256).pack()


def test_xcrs_with_an_impossible_count_are_refused() -> None:
    with pytest.raises(ValueError, match="17 registers"):
        Xcrs.unpack(b"\x11" + bytes(391))


def test_xsave_is_padded_to_a_larger_hosts_struct() -> None:
    item = Xsave()
    assert item.pack(8192) == item.region + bytes(4096)
    assert Xsave.unpack(item.pack(8192)).region == item.pack(8192)


def test_lapic_entries_are_unmasked_with_their_mode() -> None:
    lapic = reset_lapic(5)
    assert lapic.get(0x20) == 5 << 24
    assert lapic.get(APIC_LVT0) == 1 << 16
    assert lapic.with_delivery(APIC_LVT0, DELIVERY_EXTINT).get(APIC_LVT0) == 0x700
    odd = lapic.set(APIC_LVT0, 0x1_8733)
    assert odd.with_delivery(APIC_LVT0, 0x400).get(APIC_LVT0) == 0x8433


@given(entries=st.lists(st.tuples(*[U32] * 7), max_size=20))
def test_cpuid_tables_round_trip(entries: list[tuple[int, ...]]) -> None:
    names = [field.name for field in dataclasses.fields(CpuidEntry)]
    table = tuple(CpuidEntry(**dict(zip(names, e, strict=True))) for e in entries)
    assert unpack_cpuid(pack_cpuid(table)) == table


def test_padding_of_cpuid_is_dropped() -> None:
    kept = (CpuidEntry(function=0, eax=13), CpuidEntry(function=0, index=1))
    assert without_padding((*kept, CpuidEntry(function=0))) == kept


def test_cpuid_of_a_partial_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="39 bytes"):
        unpack_cpuid(bytes(39))


@given(msrs=MSRS)
def test_msrs_round_trip_in_chunks(msrs: tuple[tuple[int, int], ...]) -> None:
    parts = list(chunks(msrs))
    assert all(len(part) <= 255 for part in parts)
    assert tuple(m for p in parts for m in unpack_msrs(pack_msrs(p))) == msrs


def test_msrs_of_another_count_are_refused() -> None:
    with pytest.raises(ValueError, match="kvm_msrs"):
        unpack_msrs(pack_msrs(BOOT_MSRS)[:-1])


@given(msrs=MSRS)
def test_the_tsc_is_set_first_and_its_deadline_last(
    msrs: tuple[tuple[int, int], ...],
) -> None:
    mixed = (*msrs, (MSR_IA32_TSC_DEADLINE, 7), (MSR_IA32_TSC, 5))
    order = in_setting_order(mixed)
    assert sorted(order) == sorted(mixed)
    assert order[0][0] == MSR_IA32_TSC
    assert order[-1][0] == MSR_IA32_TSC_DEADLINE
