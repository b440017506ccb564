"""Whether a host fits a snapshot, on made-up hosts: refusals by name."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import U32
from vmmd.boot.image import Entry
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.cpuid import AMD, INTEL, CpuidEntry
from vmmd.cpu.fpu import Xsave
from vmmd.cpu.host_fit import HostFacts, cannot_scale, check, must_scale
from vmmd.cpu.topology import Topology
from vmmd.errors import SnapshotError

if TYPE_CHECKING:
    from vmmd.cpu.state import VcpuState

AVX512F, MTRR = 1 << 16, 1 << 12


def cpuid(vendor: bytes = INTEL, ebx7: int = 0, edx: int = 0) -> tuple[CpuidEntry, ...]:
    ebx, edx0, ecx = struct.unpack("<3I", vendor)
    return (
        CpuidEntry(function=0, eax=0xD, ebx=ebx, ecx=ecx, edx=edx0),
        CpuidEntry(function=1, edx=edx),
        CpuidEntry(function=7, flags=1, ebx=ebx7),
    )


def host(table: tuple[CpuidEntry, ...] = cpuid()) -> HostFacts:
    return HostFacts(
        architecture="x86_64",
        cpuid=table,
        msrs=frozenset({0x10, 0x174, 0x1A0}),
        xsave_size=4096,
        max_vcpus=2,
        as_seen=lambda: table,
    )


def guest(
    table: tuple[CpuidEntry, ...] = cpuid(), msrs: tuple[int, ...] = (0x10, 0x174)
) -> VcpuState:
    booted = boot_vcpu(Topology(0, 1), table, Entry("linux64", 0x100000, 0x7000))
    saved = tuple((index, 0) for index in msrs)
    return dataclasses.replace(booted, cpuid=table, msrs=saved)


def refused(facts: HostFacts, *vcpus: VcpuState, architecture: str = "x86_64") -> str:
    with pytest.raises(SnapshotError) as caught:
        check(facts, architecture, vcpus)
    return str(caught.value)


@given(ebx7=U32, edx=U32, more=U32)
def test_a_host_that_offers_as_much_or_more_fits(
    ebx7: int, edx: int, more: int
) -> None:
    check(
        host(cpuid(INTEL, ebx7 | more, edx | more)),
        "x86_64",
        [guest(cpuid(INTEL, ebx7, edx))],
    )


def test_features_that_the_host_has_not_are_named_once() -> None:
    vcpus = [guest(cpuid(INTEL, AVX512F | 1 << 5))] * 2
    text = refused(host(), *vcpus)
    assert text.startswith("This host cannot go on with the snapshot: its processor")
    assert text.count("avx2, avx512f: load it on a host that has them") == 1


@given(guest_bits=U32, host_bits=U32)
def test_exactly_the_missing_ones_are_refused(guest_bits: int, host_bits: int) -> None:
    ignored = 1 << 6 | 1 << 13
    facts, state = host(cpuid(AMD, host_bits)), guest(cpuid(AMD, guest_bits))
    if guest_bits & ~host_bits & ~ignored:
        assert "features that this host does not offer" in refused(facts, state)
    else:
        check(facts, "x86_64", [state])


def test_what_guests_see_beyond_what_kvm_lists_counts() -> None:
    rich = cpuid(INTEL, AVX512F)
    check(dataclasses.replace(host(), as_seen=lambda: rich), "x86_64", [guest(rich)])


def test_a_host_that_fits_is_not_asked_twice() -> None:
    def never() -> tuple[CpuidEntry, ...]:
        raise AssertionError("asked")

    check(dataclasses.replace(host(), as_seen=never), "x86_64", [guest()])


def test_another_architecture_is_all_that_is_said() -> None:
    text = refused(host(), guest(), architecture="aarch64")
    assert "an aarch64 guest and this host is x86_64" in text


def test_another_vendor_is_named_and_hides_the_rest() -> None:
    text = refused(host(cpuid(AMD)), guest(cpuid(INTEL, AVX512F), msrs=(0x7777,)))
    assert "processor of GenuineIntel and this one is of AuthenticAMD" in text
    assert "avx512f" not in text
    assert "0x7777" not in text


def test_a_vendor_that_is_no_text_is_shown_all_the_same() -> None:
    assert "\\xff" in refused(host(), guest(cpuid(b"\xff" * 12)))


@given(st.sets(st.sampled_from(range(0x5000, 0x5020)), max_size=20))
def test_msrs_that_kvm_does_not_know_are_named(unknown: set[int]) -> None:
    state = guest(msrs=(0x10, *unknown, 0x174))
    if not unknown:
        check(host(), "x86_64", [state])
        return
    text = refused(host(), state)
    shown = ", ".join(f"{index:#x}" for index in sorted(unknown)[:8])
    assert f"{shown}{' and others' if len(unknown) > 8 else ''}: load it" in text


def test_msrs_that_follow_from_cpuid_are_known() -> None:
    check(host(), "x86_64", [guest(msrs=(0x10,))])
    assert "0x200" in refused(host(), guest(msrs=(0x200,)))
    with_mtrrs = cpuid(edx=MTRR)
    check(host(with_mtrrs), "x86_64", [guest(with_mtrrs, msrs=(0x200, 0x2FF))])


def test_more_vcpus_than_kvm_has() -> None:
    assert "3 vCPUs and this KVM allows 2" in refused(host(), *[guest()] * 3)


def test_an_xsave_state_that_the_host_cannot_hold() -> None:
    big = dataclasses.replace(guest(), xsave=Xsave(region=bytes(11008)))
    assert "11008 bytes and this KVM keeps 4096" in refused(host(), big)
    check(dataclasses.replace(host(), xsave_size=11008), "x86_64", [big])


def test_a_state_that_lies_elsewhere() -> None:
    def with_pkru(offset: int) -> tuple[CpuidEntry, ...]:
        leaf, place = (
            CpuidEntry(function=0xD, eax=1 << 9),
            CpuidEntry(function=0xD, index=9, eax=8, ebx=offset),
        )
        return (*cpuid(), leaf, place)

    text = refused(host(with_pkru(832)), guest(with_pkru(2688)))
    assert "keeps the state of pkru in another layout" in text


@given(khz=st.integers(100_000, 10_000_000), ppm=st.integers(-2000, 2000))
def test_a_tsc_may_differ_by_250_ppm(khz: int, ppm: int) -> None:
    here = khz + khz * ppm // 1_000_000
    assert must_scale(khz, here) == (abs(here - khz) > khz * 250 // 1_000_000)


def test_the_edge_of_the_tolerance() -> None:
    assert not must_scale(2_000_000, 2_000_500)
    assert must_scale(2_000_000, 2_000_501)
    assert must_scale(2_000_000, 1_999_499)


def test_a_tsc_that_cannot_be_scaled_says_both_frequencies() -> None:
    text = str(cannot_scale(2_500_000, 3_000_000, "this KVM does not scale"))
    assert text.startswith("Could not set TSC scaling within the snapshot: this KVM")
    assert "2500000 kHz" in text
    assert "3000000 kHz" in text
