"""Which MSRs a snapshot holds, and what it holds where KVM's word is not enough.

What KVM lists of a guest's state and is worth keeping, what follows from CPUID
and KVM does not list (Firecracker's two tables), and what a CPU template set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cpu.cpuid import AMD, INTEL, CpuidTable
from vmmd.cpu.msrs import MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE, in_setting_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vmmd.cpu.cpuid import CpuidEntry
    from vmmd.cpu.msrs import Msr

MSR_IA32_XSS = 0xDA0

_KEPT = frozenset(
    {
        *(0x0, 0x1, 0x10, 0x17, 0x1B, 0x2A, 0x2C, 0x34, 0x3A, 0x3B, 0x48, 0x49, 0x79),
        *(0x8B, 0x9E, 0xCD, 0xCE, 0xE2, 0xE7, 0xE8, 0xFE, 0x11E, 0x122, 0x140),
        *range(0x174, 0x177),  # SYSENTER_CS, _ESP, _EIP
        *(0x179, 0x17A),  # MCG_CAP, _STATUS; MCG_CTL is refused by KVM
        *(0x198, 0x1A0, 0x1A4, 0x1AA, 0x1AD, 0x1AE, 0x1D9, 0x1FC),
        *range(0x1DB, 0x1DF),  # last branch and last interrupt
        *range(0x200, 0x300),  # MTRRs and PAT
        *range(0x3FC, 0x3FF),  # core C-state residency
        *range(0x400, 0x480),  # machine check banks
        *(0x606, 0x60A, 0x60B, 0x60C, 0x610, 0x611, 0x613, 0x614),
        *(0x618, 0x619, 0x61B, 0x61C, *range(0x648, 0x64D)),
        *(MSR_IA32_TSC_DEADLINE, MSR_IA32_XSS),
        *range(0x800, 0xC00),  # x2APIC
        *range(0x4B56_4D00, 0x4B56_4E00),  # KVM's own
        *range(0xC000_0080, 0xC000_0085),  # EFER, STAR, LSTAR, CSTAR, SYSCALL_MASK
        *range(0xC000_0100, 0xC000_0104),  # FS_BASE to TSC_AUX
        0xC001_0015,  # HWCR
    }
)

# Of the MTRRs: the variable ranges, the fixed ones, PAT and the default type.
_MTRRS = (*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x277, 0x2FF)
# Leaf (its subleaf 0), register and bit of a feature, and the MSRs it brings.
_BY_CPUID: tuple[tuple[int, str, int, Sequence[int]], ...] = (
    (7, "ebx", 14, (0xD90,)),  # MPX: BNDCFGS
    (1, "edx", 12, _MTRRS),
    (1, "edx", 7, range(0x400, 0x480)),  # MCE: 32 banks of four
)


def is_kept(index: int) -> bool:
    """Whether a snapshot holds this MSR if KVM lists it."""
    return index in _KEPT


def by_cpuid(cpuid: Iterable[CpuidEntry]) -> tuple[int, ...]:
    """MSRs that a guest with this CPUID has, whether KVM lists them or not."""
    table = CpuidTable(cpuid)
    if table.vendor() not in (INTEL, AMD):
        return ()
    found: list[int] = []
    for leaf, register, bit, msrs in _BY_CPUID:
        entry = table.get(leaf)
        if entry is not None and getattr(entry, register) >> bit & 1:
            found += msrs
    return tuple(found)


def to_save(
    listed: Iterable[int], cpuid: Iterable[CpuidEntry], template: Iterable[int] = ()
) -> tuple[int, ...]:
    """The MSRs that a snapshot holds, each once, in the order of setting them.

    ``listed`` is KVM_GET_MSR_INDEX_LIST, ``template`` what a CPU template sets.
    """
    chosen = {index for index in listed if is_kept(index)}
    chosen |= {*by_cpuid(cpuid), *template}
    return tuple(index for index, _ in in_setting_order((i, 0) for i in chosen))


def with_deadline(msrs: tuple[Msr, ...]) -> tuple[Msr, ...]:
    """A TSC deadline of 0 becomes the TSC: due at once.

    KVM clears the deadline when it is reached, and a vCPU that is stopped just
    then has neither a deadline nor the interrupt: without this its timer never
    fires again after a restore. One interrupt too many does no harm.
    """
    tsc = dict(msrs).get(MSR_IA32_TSC)
    if tsc is None:
        return msrs
    return tuple(
        (index, tsc) if (index, value) == (MSR_IA32_TSC_DEADLINE, 0) else (index, value)
        for index, value in msrs
    )
