"""The bits of CPUID that say what a processor can do, and their names.

Names are those of Linux's ``/proc/cpuinfo``, with a ``kvm_`` before what the
hypervisor offers and ``state of`` before what XSAVE can keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmmd.cpu.cpuid import CpuidEntry, CpuidTable

_NAMELESS = "-"


@dataclass(frozen=True, slots=True)
class Word:
    """One register of one leaf. ``ignored`` are bits that the host need not have.

    They are put in by whoever made the guest's table, or move while it runs.
    """

    function: int
    index: int
    register: str
    names: tuple[str, ...]
    ignored: int = 0

    def name(self, bit: int) -> str:
        """The bit's name, or where it is if it has none."""
        if bit < len(self.names) and self.names[bit] != _NAMELESS:
            return self.names[bit]
        leaf = f"{self.function:#x}.{self.index}"
        return f"CPUID {leaf} {self.register.upper()} bit {bit}"


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def _nameless(count: int) -> str:
    return " ".join([_NAMELESS] * count)


_1_EDX = """fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36
pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"""
_1_ECX = """pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16
xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave
osxsave avx f16c rdrand hypervisor"""
_7_EBX = """fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid
rtm cqm zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma pcommit
clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"""
_7_ECX = """prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes
vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid
keylocker bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks"""
_7_EDX = """- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl
md_clear rtm_always_abort - tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig
arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d
arch_capabilities core_capabilities spec_ctrl_ssbd"""
_7_1_EAX = """- - - - avx_vnni avx512_bf16 lass cmpccxadd - - fzrm fsrs fsrc - - - - - -
- - amx_fp16 hreset avx_ifma - - lam"""
_STATES = """x87 sse avx bndregs bndcsr opmask zmm_hi256 hi16_zmm - pkru - - - - - - -
xtilecfg xtiledata"""
_D_1_EAX = "xsaveopt xsavec xgetbv1 xsaves xfd"
_EXT1_EDX = f"""{_nameless(11)} syscall {_nameless(7)} mp nx - mmxext - - fxsr_opt
pdpe1gb rdtscp - lm 3dnowext 3dnow"""
_EXT1_ECX = """lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse
3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext
perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx"""
_EXT7_EDX = f"{_nameless(8)} nonstop_tsc"
_EXT8_EBX = """clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs
amd_stibp - amd_stibp_always_on - - - - - amd_ppin amd_ssbd virt_ssbd amd_ssb_no - -
btc_no"""
_KVM_EAX = """kvm_clocksource kvm_nop_io_delay kvm_mmu_op kvm_clocksource2 kvm_async_pf
kvm_steal_time kvm_pv_eoi kvm_pv_unhalt - kvm_pv_tlb_flush kvm_async_pf_vmexit
kvm_pv_send_ipi kvm_poll_control kvm_pv_sched_yield kvm_async_pf_int
kvm_msi_ext_dest_id kvm_hc_map_gpa_range kvm_migration_control"""

_XSAVE_WORD = Word(
    0xD,
    0,
    "eax",
    tuple(
        _NAMELESS if name == _NAMELESS else f"state of {name}"
        for name in _STATES.split()
    ),
)

WORDS = (
    Word(1, 0, "edx", tuple(_1_EDX.split()), _bits(28)),
    Word(1, 0, "ecx", tuple(_1_ECX.split()), _bits(3, 24, 27, 31)),
    Word(7, 0, "ebx", tuple(_7_EBX.split()), _bits(6, 13)),
    Word(7, 0, "ecx", tuple(_7_ECX.split()), _bits(4)),
    Word(7, 0, "edx", tuple(_7_EDX.split())),
    Word(7, 1, "eax", tuple(_7_1_EAX.split())),
    _XSAVE_WORD,
    Word(0xD, 1, "eax", tuple(_D_1_EAX.split())),
    Word(0x8000_0001, 0, "edx", tuple(_EXT1_EDX.split())),
    Word(0x8000_0001, 0, "ecx", tuple(_EXT1_ECX.split()), _bits(1, 22)),
    Word(0x8000_0007, 0, "edx", tuple(_EXT7_EDX.split())),
    Word(0x8000_0008, 0, "ebx", tuple(_EXT8_EBX.split())),
    Word(0x4000_0001, 0, "eax", tuple(_KVM_EAX.split())),
)


def missing(guest: CpuidTable, *hosts: CpuidTable) -> tuple[str, ...]:
    """The features that the guest's table has and none of the host's, by name."""
    lacks = ((word, _lacking(word, guest, hosts)) for word in WORDS)
    return tuple(
        word.name(bit)
        for word, lacking in lacks
        for bit in range(lacking.bit_length())
        if lacking >> bit & 1
    )


def _lacking(word: Word, guest: CpuidTable, hosts: Iterable[CpuidTable]) -> int:
    lacking = _value(word, guest) & ~word.ignored
    for host in hosts:
        if not lacking:
            break
        lacking &= ~_value(word, host)
    return lacking


def _value(word: Word, table: CpuidTable) -> int:
    entry = table.get(word.function, word.index)
    value: int = 0 if entry is None else getattr(entry, word.register)
    return value


def moved_states(guest: CpuidTable, host: CpuidTable) -> tuple[str, ...]:
    """What XSAVE keeps at another place or in another size on the host, by name."""
    kept = _value(_XSAVE_WORD, guest) & _value(_XSAVE_WORD, host)
    # x87 and SSE lie where they always lay.
    bits = (bit for bit in range(2, kept.bit_length()) if kept >> bit & 1)
    return tuple(
        _XSAVE_WORD.name(bit)
        for bit in bits
        if _place(guest.get(0xD, bit)) != _place(host.get(0xD, bit))
    )


def _place(leaf: CpuidEntry | None) -> tuple[int, int]:
    """Size and offset in bytes."""
    return (0, 0) if leaf is None else (leaf.eax, leaf.ebx)
