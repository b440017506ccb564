"""Which MSRs a snapshot holds, in which order, and the deadline that was reached."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.cpuid import AMD, INTEL, CpuidEntry
from vmmd.cpu.msrs import MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE
from vmmd.cpu.saved_msrs import by_cpuid, is_kept, to_save, with_deadline

U32 = st.integers(0, 0xFFFF_FFFF)
U64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
MTRR, MCE, MPX = 1 << 12, 1 << 7, 1 << 14


def cpuid(vendor: bytes, edx: int = 0, ebx7: int = 0) -> tuple[CpuidEntry, ...]:
    ebx, edx0, ecx = struct.unpack("<3I", vendor)
    return (
        CpuidEntry(function=0, eax=7, ebx=ebx, ecx=ecx, edx=edx0),
        CpuidEntry(function=1, edx=edx),
        CpuidEntry(function=7, ebx=ebx7),
    )


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (0x10, True),
        (0x122, True),
        (0x17A, True),
        (0x17B, False),  # MCG_CTL: KVM refuses it
        (0x176, True),
        (0x177, False),
        (0x2FF, True),
        (0x300, False),
        (0x480, False),
        (0x6E0, True),
        (0xDA0, True),
        (0xBFF, True),
        (0xC00, False),
        (0x4B56_4DFF, True),
        (0x4B56_4E00, False),
        (0x4000_0000, False),  # Hyper-V's
        (0xC000_0103, True),
        (0xC000_0104, False),
        (0xC001_0015, True),
    ],
)
def test_the_list_of_what_is_kept(index: int, kept: bool) -> None:
    assert is_kept(index) is kept


@pytest.mark.parametrize("vendor", [INTEL, AMD])
@pytest.mark.parametrize(
    ("edx", "ebx7", "count"),
    [(0, 0, 0), (MTRR, 0, 29), (MCE, 0, 128), (0, MPX, 1), (MTRR | MCE, MPX, 158)],
)
def test_features_bring_their_msrs(
    vendor: bytes, edx: int, ebx7: int, count: int
) -> None:
    found = by_cpuid(cpuid(vendor, edx, ebx7))
    assert len(set(found)) == len(found) == count


def test_another_vendors_cpuid_says_nothing() -> None:
    assert by_cpuid(cpuid(b"CentaurHauls", MTRR | MCE, MPX)) == ()
    assert by_cpuid(()) == ()


@given(listed=st.lists(st.one_of(st.integers(0, 0xC00), U32)), template=st.sets(U32))
def test_each_once_with_the_tsc_first_and_its_deadline_last(
    listed: list[int], template: set[int]
) -> None:
    chosen = to_save(
        [*listed, MSR_IA32_TSC_DEADLINE, MSR_IA32_TSC],
        cpuid(INTEL, MTRR, MPX),
        template,
    )
    assert len(set(chosen)) == len(chosen)
    assert (chosen[0], chosen[-1]) == (MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE)
    assert list(chosen[1:-1]) == sorted(chosen[1:-1])
    assert {i for i in listed if is_kept(i)} | template | {0xD90} <= set(chosen)


@given(tsc=st.integers(1, 2**64 - 1), deadline=U64, other=U64)
def test_a_deadline_that_was_reached_is_due_at_once(
    tsc: int, deadline: int, other: int
) -> None:
    msrs = (
        (MSR_IA32_TSC, tsc),
        (0x174, other),
        (0x175, 0),
        (MSR_IA32_TSC_DEADLINE, deadline),
    )
    assert with_deadline(msrs) == (*msrs[:3], (MSR_IA32_TSC_DEADLINE, deadline or tsc))


def test_without_a_tsc_a_deadline_stays() -> None:
    assert with_deadline(((MSR_IA32_TSC_DEADLINE, 0),)) == ((MSR_IA32_TSC_DEADLINE, 0),)
