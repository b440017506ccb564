"""Which processor is which: threads, cores, one package; who shares a cache.

APIC ids are the vCPUs' indices, as in the MADT and the MP table.
"""

from __future__ import annotations

from vmmd.frozen import dataclass

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

MAX_VCPUS = 32
# All APIC ids of a package agree above this bit: one package, whatever the count.
PACKAGE_SHIFT = 7

_LEVEL_SMT, _LEVEL_CORE = 1, 2
_CACHE_DATA, _CACHE_INSTRUCTION, _CACHE_UNIFIED = 1, 2, 3
_SELF_INITIALIZING = 1 << 8
_INCLUSIVE = 1 << 1
# AMD's code of a cache's associativity (leaf 0x80000006): ways. Others: no cache
# or one that this form cannot say.
_WAYS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 16, 10: 32, 11: 48, 12: 64, 13: 96}
_WAYS |= {9: 16, 14: 128}


@dataclass(frozen=True, slots=True)
class Topology:
    """vCPU ``index`` of ``count`` (1..32), two threads a core if ``smt``."""

    index: int
    count: int
    smt: bool = False

    @property
    def thread_bits(self) -> int:
        """How many bits of an APIC id number the threads of a core."""
        return int(self.smt and self.count > 1)

    @property
    def threads(self) -> int:
        """Threads a core."""
        return 1 << self.thread_bits

    @property
    def cores(self) -> int:
        """Cores in the package."""
        return -(-self.count // self.threads)

    @property
    def addressable(self) -> int:
        """APIC ids the package has room for: ``count`` up to a power of two."""
        return 1 << (self.count - 1).bit_length()

    def levels(self) -> tuple[Registers, ...]:
        """Leaves 0xB and 0x1F: threads of a core, cores of the package, no more."""
        smt = (self.thread_bits, self.threads, 0 | _LEVEL_SMT << 8, self.index)
        core = (PACKAGE_SHIFT, self.count, 1 | _LEVEL_CORE << 8, self.index)
        return smt, core, (0, 0, 2, self.index)

    def cache_sharing(self, eax: int) -> int:
        """EAX of a cache leaf (4, 0x8000001D) with the number of its users put in.

        Levels 1 and 2 belong to a core, the last to the package.
        """
        if not eax & 0x1F:
            return eax
        users = self.threads if eax >> 5 & 7 <= 2 else self.count
        return eax & ~0x03FF_C000 | users - 1 << 14

    def amd_size(self, ecx: int) -> int:
        """ECX of leaf 0x80000008: threads in the package, bits of their ids."""
        return ecx & ~0xF0FF | self.count - 1 | PACKAGE_SHIFT << 12

    def amd_ids(self) -> Registers:
        """Leaf 0x8000001E: APIC id, core and threads a core, node 0 of one."""
        core = self.index >> self.thread_bits
        return self.index, core | self.threads - 1 << 8, 0, 0


def amd_caches(l1d: int, l1i: int, l2: int, l3: int) -> tuple[Registers, ...]:
    """Leaf 0x8000001D made from ECX and EDX of 0x80000005 and 0x80000006.

    Without sharing; ends in the null subleaf. What has no size is left out.
    """
    caches = (
        (_CACHE_DATA, 1, (l1d >> 24) * 1024, l1d >> 16 & 0xFF, l1d & 0xFF),
        (_CACHE_INSTRUCTION, 1, (l1i >> 24) * 1024, l1i >> 16 & 0xFF, l1i & 0xFF),
        (_CACHE_UNIFIED, 2, (l2 >> 16) * 1024, _ways(l2), l2 & 0xFF),
        (_CACHE_UNIFIED, 3, (l3 >> 18) * 512 * 1024, _ways(l3), l3 & 0xFF),
    )
    made = [_cache(*cache) for cache in caches if all(cache[2:])]
    return (*made, (0, 0, 0, 0))


def _ways(register: int) -> int:
    return _WAYS.get(register >> 12 & 0xF, 0)


def _cache(kind: int, level: int, size: int, ways: int, line: int) -> Registers:
    sets = max(1, size // (line * ways))
    eax = kind | level << 5 | _SELF_INITIALIZING
    return eax, line - 1 | ways - 1 << 22, sets - 1, _INCLUSIVE * (level == 2)
