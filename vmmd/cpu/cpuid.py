"""CPUID as the guest sees it: entries, and their form for each vCPU.

KVM says what it can virtualise; what a leaf says of *this* processor (its APIC
id, its neighbours, its caches, its name) is put in here, as Firecracker does
(its ``cpuid/normalize.rs``), so that CPUID and the MADT agree.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from typing import TYPE_CHECKING

from vmmd.cpu import layout
from vmmd.cpu.topology import Topology, amd_caches
from vmmd.state.record import U32, record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from vmmd.cpu.topology import Registers

INTEL = b"GenuineIntel"
AMD = b"AuthenticAMD"
SIGNIFICANT_INDEX = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX
BRAND_LEAVES = (0x8000_0002, 0x8000_0003, 0x8000_0004)
BRAND_SIZE = 48

_ENTRY = struct.Struct("<7I12x")
_CLFLUSH_UNITS = 8  # of eight bytes: a line of 64
_EXTENDED_MAX = 0x8000_001F  # the least that reaches AMD's topology leaves
_FREQUENCY = re.compile(rb"([0-9]+(?:\.[0-9]+)?[MGT]Hz)")

# Leaf 1 ECX, EDX; leaf 6 EAX, ECX; leaf 7 EBX, ECX; leaf 0x80000001 ECX.
TSC_DEADLINE, HYPERVISOR, HTT = 24, 31, 28
TURBO_BOOST, ENERGY_PERFORMANCE_BIAS = 1, 3
FDP_EXCPTN_ONLY, ZERO_FCS_FDS, WAITPKG = 6, 13, 5
CMP_LEGACY, TOPOLOGY_EXTENSIONS = 1, 22


@record("kvm_cpuid_entry2", 1)
class CpuidEntry:
    """``struct kvm_cpuid_entry2``, 40 bytes."""

    function: U32
    index: U32 = 0
    flags: U32 = 0
    eax: U32 = 0
    ebx: U32 = 0
    ecx: U32 = 0
    edx: U32 = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_ENTRY, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_ENTRY, cls, raw)


def pack_cpuid(entries: Iterable[CpuidEntry]) -> bytes:
    """The entries of a ``struct kvm_cpuid2``, 40 bytes each, without its head."""
    return b"".join(entry.pack() for entry in entries)


def unpack_cpuid(raw: bytes) -> tuple[CpuidEntry, ...]:
    """Entries of 40 bytes each. ValueError if ``raw`` is no multiple of that."""
    if len(raw) % _ENTRY.size:
        raise ValueError(f"CpuidEntry: {len(raw)} bytes are no multiple of 40")
    return layout.unpack_all(_ENTRY, CpuidEntry, raw)


def without_padding(entries: Iterable[CpuidEntry]) -> tuple[CpuidEntry, ...]:
    """What KVM_GET_CPUID2 gave, less the empty entries that some kernels add."""
    return tuple(e for e in entries if e.function or e.index or e.flags or e.eax)


class CpuidTable:
    """A guest's CPUID being edited. What a leaf does not have reads as zero."""

    def __init__(self, entries: Iterable[CpuidEntry]) -> None:
        self._entries = {(entry.function, entry.index): entry for entry in entries}

    def get(self, function: int, index: int = 0) -> CpuidEntry | None:
        """The entry, None if there is none."""
        return self._entries.get((function, index))

    def put(self, entry: CpuidEntry) -> None:
        """Add or replace an entry."""
        self._entries[entry.function, entry.index] = entry

    def drop(self, function: int) -> None:
        """Forget a leaf with all its subleaves."""
        for key in [key for key in self._entries if key[0] == function]:
            del self._entries[key]

    def subleaves(self, function: int) -> tuple[CpuidEntry, ...]:
        """All entries of a leaf, by index."""
        return tuple(entry for entry in self.entries() if entry.function == function)

    def entries(self) -> tuple[CpuidEntry, ...]:
        """All entries, by leaf and subleaf."""
        return tuple(self._entries[key] for key in sorted(self._entries))

    def vendor(self) -> bytes:
        """Leaf 0's twelve letters."""
        leaf = self.get(0) or CpuidEntry(function=0)
        return struct.pack("<3I", leaf.ebx, leaf.edx, leaf.ecx)

    def raise_maximum(self, function: int, least: int) -> None:
        """Let leaf ``function`` (0 or 0x80000000) say that ``least`` exists."""
        leaf = self.get(function) or CpuidEntry(function=function)
        self.put(dataclasses.replace(leaf, eax=max(leaf.eax, least)))

    def brand(self) -> bytes:
        """The processor's name, without its padding."""
        leaves = (self.get(leaf) or CpuidEntry(function=leaf) for leaf in BRAND_LEAVES)
        words = (word for e in leaves for word in (e.eax, e.ebx, e.ecx, e.edx))
        return struct.pack("<12I", *words).rstrip(b"\0").strip()

    def set_brand(self, name: bytes) -> None:
        """Set the processor's name; at most 47 bytes of it."""
        words = struct.unpack("<12I", name[: BRAND_SIZE - 1].ljust(BRAND_SIZE, b"\0"))
        for i, leaf in enumerate(BRAND_LEAVES):
            eax, ebx, ecx, edx = words[4 * i : 4 * i + 4]
            self.put(CpuidEntry(function=leaf, eax=eax, ebx=ebx, ecx=ecx, edx=edx))


def normalise(
    supported: Iterable[CpuidEntry], topology: Topology
) -> tuple[CpuidEntry, ...]:
    """What KVM supports, as the vCPU ``topology.index`` shall report it.

    ``supported`` comes from KVM_GET_SUPPORTED_CPUID (or a CPU template made of
    it). All vCPUs' tables differ only in APIC and core ids.
    """
    table = CpuidTable(supported)
    _features(table, topology)
    _extended_topology(table, topology)
    match table.vendor():
        case vendor if vendor == INTEL:
            _intel(table, topology)
        case vendor if vendor == AMD:
            _amd(table, topology)
    return table.entries()


def set_bit(value: int, bit: int, on: bool) -> int:
    """``value`` with one bit set or cleared."""
    return value | 1 << bit if on else value & ~(1 << bit)


def _features(table: CpuidTable, topology: Topology) -> None:
    leaf = table.get(1) or CpuidEntry(function=1)
    ebx = (
        (leaf.ebx & 0xFF)
        | _CLFLUSH_UNITS << 8
        | topology.addressable << 16
        | topology.index << 24
    )
    ecx = set_bit(set_bit(leaf.ecx, TSC_DEADLINE, True), HYPERVISOR, True)
    edx = set_bit(leaf.edx, HTT, topology.count > 1)
    table.put(dataclasses.replace(leaf, ebx=ebx, ecx=ecx, edx=edx))
    if leaf7 := table.get(7):
        table.put(dataclasses.replace(leaf7, ecx=set_bit(leaf7.ecx, WAITPKG, False)))


def _extended_topology(table: CpuidTable, topology: Topology) -> None:
    table.raise_maximum(0, 0xB)
    leaf_zero = table.get(0)
    highest = leaf_zero.eax if leaf_zero else 0
    for function in (0xB, 0x1F):
        table.drop(function)
        if function <= highest:
            for index, registers in enumerate(topology.levels()):
                table.put(_entry(function, index, registers))


def _intel(table: CpuidTable, topology: Topology) -> None:
    for leaf in table.subleaves(4):
        eax = topology.cache_sharing(leaf.eax)
        if eax & 0x1F:
            eax = eax & 0x03FF_FFFF | topology.cores - 1 << 26
        table.put(dataclasses.replace(leaf, eax=eax))
    if leaf6 := table.get(6):
        eax = set_bit(leaf6.eax, TURBO_BOOST, False)
        ecx = set_bit(leaf6.ecx, ENERGY_PERFORMANCE_BIAS, False)
        table.put(dataclasses.replace(leaf6, eax=eax, ecx=ecx))
    if leaf7 := table.get(7):
        ebx = set_bit(set_bit(leaf7.ebx, FDP_EXCPTN_ONLY, True), ZERO_FCS_FDS, True)
        table.put(dataclasses.replace(leaf7, ebx=ebx))
    if pmu := table.get(0xA):
        table.put(CpuidEntry(function=0xA, flags=pmu.flags))
    table.set_brand(_intel_brand(table.brand()))


def _intel_brand(host: bytes) -> bytes:
    found = _FREQUENCY.search(host)
    name = b"Intel(R) Xeon(R) Processor"
    return name + b" @ " + found.group(1) if found else name


def _amd(table: CpuidTable, topology: Topology) -> None:
    table.raise_maximum(0x8000_0000, _EXTENDED_MAX)
    if leaf := table.get(0x8000_0001):
        ecx = set_bit(leaf.ecx, TOPOLOGY_EXTENSIONS, True)
        ecx = set_bit(ecx, CMP_LEGACY, topology.count > 1)
        table.put(dataclasses.replace(leaf, ecx=ecx))
    sizes = table.get(0x8000_0008) or CpuidEntry(function=0x8000_0008)
    table.put(dataclasses.replace(sizes, ecx=topology.amd_size(sizes.ecx)))
    _amd_caches(table, topology)
    table.put(_entry(0x8000_001E, 0, topology.amd_ids(), flags=0))
    # A later leaf that says the same of the host's processor would win over 0xB.
    table.drop(0x8000_0026)
    table.set_brand(b"AMD EPYC")


def _amd_caches(table: CpuidTable, topology: Topology) -> None:
    """Leaf 0x8000001D: KVM's where it gives one, else made from 5 and 6."""
    given = [leaf for leaf in table.subleaves(0x8000_001D) if leaf.eax & 0x1F]
    if not given:
        old = [table.get(leaf) for leaf in (0x8000_0005, 0x8000_0006)]
        l1, l2 = (leaf or CpuidEntry(function=0) for leaf in old)
        made = amd_caches(l1.ecx, l1.edx, l2.ecx, l2.edx)
        given = [_entry(0x8000_001D, i, regs) for i, regs in enumerate(made)]
    for leaf in given:
        table.put(dataclasses.replace(leaf, eax=topology.cache_sharing(leaf.eax)))


def _entry(
    function: int, index: int, registers: Registers, flags: int = SIGNIFICANT_INDEX
) -> CpuidEntry:
    eax, ebx, ecx, edx = registers
    return CpuidEntry(
        function=function,
        index=index,
        flags=flags,
        eax=eax,
        ebx=ebx,
        ecx=ecx,
        edx=edx,
    )
