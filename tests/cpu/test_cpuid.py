"""CPUID per vCPU: ids agree with the MADT, topology with itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.cpuid import AMD, INTEL, CpuidEntry, CpuidTable, normalise
from vmmd.cpu.topology import Topology, amd_caches

U32 = st.integers(0, 0xFFFF_FFFF)


def host(vendor: bytes, brand: bytes = b"", highest: int = 0x1F) -> CpuidTable:
    """A host as KVM_GET_SUPPORTED_CPUID describes it."""
    ebx, edx, ecx = (int.from_bytes(vendor[i : i + 4], "little") for i in (0, 4, 8))
    table = CpuidTable(
        [
            CpuidEntry(function=0, eax=highest, ebx=ebx, ecx=ecx, edx=edx),
            CpuidEntry(function=1, eax=0xA00F11, ebx=0x0300_FF07, ecx=0x2001),
            CpuidEntry(function=4, index=0, flags=1, eax=0xFC00_4121),
            CpuidEntry(function=4, index=1, flags=1, eax=0xFC01_C163),
            CpuidEntry(function=4, index=2, flags=1, eax=0),
            CpuidEntry(function=6, eax=0b110, ecx=0b1001),
            CpuidEntry(function=7, flags=1, ebx=1, ecx=0x20),
            CpuidEntry(function=0xA, eax=0x0730_0404, edx=0x603),
            CpuidEntry(function=0xB, index=0, flags=1, eax=9, edx=77),
            CpuidEntry(function=0xB, index=3, flags=1, eax=9, edx=77),
            CpuidEntry(function=0x8000_0000, eax=0x8000_0008),
            CpuidEntry(function=0x8000_0001, ecx=2),
            CpuidEntry(function=0x8000_0005, ecx=0x2008_0140, edx=0x2008_0140),
            CpuidEntry(function=0x8000_0006, ecx=0x0200_6140, edx=0x0100_9140),
            CpuidEntry(function=0x8000_0008, eax=0x3030, ecx=0x703F),
            CpuidEntry(function=0x8000_0026, index=0, flags=1, eax=1, edx=99),
        ]
    )
    table.set_brand(brand)
    return table


def guest(table: CpuidTable, index: int, count: int, smt: bool = False) -> CpuidTable:
    return CpuidTable(normalise(table.entries(), Topology(index, count, smt)))


def at(table: CpuidTable, function: int, index: int = 0) -> CpuidEntry:
    entry = table.get(function, index)
    assert entry is not None
    return entry


@pytest.mark.parametrize("vendor", [INTEL, AMD])
@pytest.mark.parametrize("smt", [False, True])
@pytest.mark.parametrize("count", range(1, 33))
def test_every_leaf_names_the_same_apic_id(
    vendor: bytes, smt: bool, count: int
) -> None:
    base = host(vendor)
    for index in range(count):
        table = guest(base, index, count, smt)
        assert at(table, 1).ebx >> 24 == index
        levels = [at(table, leaf, sub) for leaf in (0xB, 0x1F) for sub in (0, 1, 2)]
        assert {level.edx for level in levels} == {index}
        if vendor == AMD:
            assert at(table, 0x8000_001E).eax == index


@pytest.mark.parametrize("count", range(1, 33))
@pytest.mark.parametrize("smt", [False, True])
def test_a_package_has_room_for_all_ids(count: int, smt: bool) -> None:
    table = guest(host(AMD), count - 1, count, smt)
    one = at(table, 1)
    assert count <= one.ebx >> 16 & 0xFF < 2 * count
    assert one.edx >> 28 & 1 == (count > 1)
    smt_level, core_level = at(table, 0xB, 0), at(table, 0xB, 1)
    threads = 2 if smt and count > 1 else 1
    assert (smt_level.ebx, 1 << smt_level.eax) == (threads, threads)
    assert core_level.ebx == count
    assert (count - 1) >> core_level.eax == 0
    assert (smt_level.ecx >> 8, core_level.ecx >> 8) == (1, 2)
    assert at(table, 0xB, 2).ebx == 0
    assert table.get(0xB, 3) is None
    amd = at(table, 0x8000_001E)
    assert (amd.ebx & 0xFF, amd.ebx >> 8) == ((count - 1) // threads, threads - 1)
    assert at(table, 0x8000_0008).ecx == 0x7000 | count - 1
    assert at(table, 0x8000_0001).ecx == 1 << 22 | (count > 1) << 1


def test_intel_caches_are_shared_within_core_and_package() -> None:
    table = guest(host(INTEL), 3, 8, smt=True)
    level1, level3 = at(table, 4, 0), at(table, 4, 1)
    assert level1.eax >> 14 & 0xFFF == 1
    assert level3.eax >> 14 & 0xFFF == 7
    assert level1.eax >> 26 == level3.eax >> 26 == 3
    assert at(table, 4, 2).eax == 0
    assert level1.eax & 0x3FFF == 0x121


def test_intel_features() -> None:
    table = guest(host(INTEL), 0, 1)
    assert at(table, 6).eax == 0b100
    assert at(table, 6).ecx == 1
    assert at(table, 7).ebx == 1 | 1 << 6 | 1 << 13
    assert at(table, 7).ecx == 0
    assert at(table, 0xA) == CpuidEntry(function=0xA)


@pytest.mark.parametrize("vendor", [INTEL, AMD, b"CentaurHauls"])
def test_a_guest_is_told_of_hypervisor_and_deadline_timer(vendor: bytes) -> None:
    one = at(guest(host(vendor), 0, 2), 1)
    assert one.ecx == 0x2001 | 1 << 24 | 1 << 31
    assert one.eax == 0xA00F11
    assert one.ebx & 0xFFFF == 0x0807


@pytest.mark.parametrize(
    ("vendor", "brand", "expected"),
    [
        (AMD, b"AMD EPYC 9B14", b"AMD EPYC"),
        (
            INTEL,
            b"Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
            b"Intel(R) Xeon(R) Processor @ 2.50GHz",
        ),
        (INTEL, b"Intel(R) Xeon(R) 6975P-C", b"Intel(R) Xeon(R) Processor"),
        (b"CentaurHauls", b"VIA Nano", b"VIA Nano"),
    ],
)
def test_brand(vendor: bytes, brand: bytes, expected: bytes) -> None:
    assert guest(host(vendor, brand), 0, 1).brand() == expected


def test_amd_caches_are_made_of_the_older_leaves() -> None:
    table = guest(host(AMD), 1, 4, smt=True)
    l1d, l1i, l2, l3, end = table.subleaves(0x8000_001D)
    assert [leaf.eax & 0xFF for leaf in (l1d, l1i, l2, l3)] == [0x21, 0x22, 0x43, 0x63]
    assert [leaf.eax >> 14 & 0xFFF for leaf in (l1d, l1i, l2, l3)] == [1, 1, 1, 3]
    assert end.eax == 0
    for leaf, size in ((l1d, 32 << 10), (l2, 512 << 10), (l3, 32 << 20)):
        line, ways, sets = (leaf.ebx & 0xFFF), leaf.ebx >> 22, leaf.ecx
        assert (line + 1) * (ways + 1) * (sets + 1) == size
    assert at(table, 0x8000_0000).eax == 0x8000_001F
    assert table.get(0x8000_0026) is None


def test_amd_caches_that_kvm_gives_are_kept() -> None:
    base = host(AMD)
    given_leaf = CpuidEntry(
        function=0x8000_001D, flags=1, eax=0x21 | 0x3FF << 14, ebx=9
    )
    base.put(given_leaf)
    (only,) = guest(base, 0, 2).subleaves(0x8000_001D)
    assert (only.eax, only.ebx) == (0x21, 9)


def test_a_cache_without_size_is_left_out() -> None:
    assert amd_caches(0, 0, 0, 0) == ((0, 0, 0, 0),)


def test_a_short_table_is_made_long_enough() -> None:
    table = guest(host(AMD, highest=7), 0, 1)
    assert at(table, 0).eax == 0xB
    assert table.get(0x1F) is None


@given(
    entries=st.lists(st.tuples(*[U32] * 6), max_size=30),
    vendor=st.sampled_from([INTEL, AMD]),
    count=st.integers(1, 32),
    smt=st.booleans(),
)
def test_any_table_normalises_and_twice_is_once(
    entries: list[tuple[int, ...]], vendor: bytes, count: int, smt: bool
) -> None:
    base = host(vendor, b"x @ 3.10GHz")
    leaves = (0, 1, 4, 6, 7, 0xA, 0xB, 0x8000_0001, 0x8000_0008, 0x8000_001D)
    for which, index, eax, ebx, ecx, edx in entries:
        function = leaves[1 + which % (len(leaves) - 1)]
        base.put(
            CpuidEntry(
                function=function, index=index % 4, eax=eax, ebx=ebx, ecx=ecx, edx=edx
            )
        )
    topology = Topology(count - 1, count, smt)
    once = normalise(base.entries(), topology)
    assert normalise(once, topology) == once
    assert [(e.function, e.index) for e in once] == sorted(
        (e.function, e.index) for e in once
    )
    for entry in once:
        entry.pack()
