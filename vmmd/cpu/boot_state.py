"""What a vCPU holds before its first instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot.layout import BOOT_GDT, BOOT_IDT, BOOT_STACK, PML4
from vmmd.cpu.cpuid import normalise
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Xcrs, Xsave
from vmmd.cpu.lapic import (
    APIC_LVT0,
    APIC_LVT1,
    DELIVERY_EXTINT,
    DELIVERY_NMI,
    reset_lapic,
)
from vmmd.cpu.msrs import BOOT_MSRS
from vmmd.cpu.registers import (
    APIC_BASE_ADDRESS,
    APIC_BASE_BSP,
    APIC_BASE_ENABLE,
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    DebugRegs,
    DescriptorTable,
    MpState,
    Regs,
    RunState,
    Segment,
    Sregs,
)
from vmmd.cpu.state import VcpuState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmmd.boot.image import Entry
    from vmmd.cpu.cpuid import CpuidEntry
    from vmmd.cpu.topology import Topology

# As vmmd/boot/tables.py lays them into guest memory.
GDT_LIMIT = 4 * 8 - 1
IDT_LIMIT = 8 - 1
CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x08, 0x10, 0x18

_DATA = Segment(
    limit=0xFFFF_FFFF, selector=DATA_SELECTOR, type=3, present=1, db=1, s=1, g=1
)
_LDT = Segment(limit=0xFFFF, type=2, present=1)


def boot_vcpu(
    topology: Topology, supported: Iterable[CpuidEntry], entry: Entry
) -> VcpuState:
    """vCPU ``topology.index`` of a machine that boots at ``entry``.

    All vCPUs get the same registers; only the first one runs, the others wait
    for INIT and SIPI. ``supported`` as for :func:`vmmd.cpu.cpuid.normalise`.
    """
    first = topology.index == 0
    lapic = reset_lapic(topology.index)
    lapic = lapic.with_delivery(APIC_LVT0, DELIVERY_EXTINT)
    return VcpuState(
        cpuid=normalise(supported, topology),
        mp_state=MpState(
            mp_state=RunState.RUNNABLE if first else RunState.UNINITIALIZED
        ),
        regs=_regs(entry),
        sregs=_sregs(entry, first),
        xsave=Xsave(),
        xcrs=Xcrs(),
        debug_regs=DebugRegs(),
        lapic=lapic.with_delivery(APIC_LVT1, DELIVERY_NMI),
        msrs=BOOT_MSRS,
        vcpu_events=VcpuEvents(),
    )


def _regs(entry: Entry) -> Regs:
    if entry.protocol == "pvh":
        return Regs(rbx=entry.params, rip=entry.rip)
    stack = BOOT_STACK
    return Regs(rsi=entry.params, rip=entry.rip, rsp=stack, rbp=stack)


def _sregs(entry: Entry, first: bool) -> Sregs:
    """The processor's mode. Caches are on: CD and NW clear, unlike at reset."""
    long_mode = entry.protocol == "linux64"
    base = APIC_BASE_ADDRESS | APIC_BASE_ENABLE
    return Sregs(
        cs=_code(long_mode),
        ds=_DATA,
        es=_DATA,
        fs=_DATA,
        gs=_DATA,
        ss=_DATA,
        tr=_tss(long_mode),
        ldt=_LDT,
        gdt=DescriptorTable(base=BOOT_GDT, limit=GDT_LIMIT),
        idt=DescriptorTable(base=BOOT_IDT, limit=IDT_LIMIT),
        cr0=CR0_PE | CR0_ET | (CR0_PG if long_mode else 0),
        cr2=0,
        cr3=PML4 if long_mode else 0,
        cr4=CR4_PAE if long_mode else 0,
        cr8=0,
        efer=EFER_LME | EFER_LMA if long_mode else 0,
        apic_base=base | (APIC_BASE_BSP if first else 0),
    )


def _code(long_mode: bool) -> Segment:
    """Descriptor 0xA09B (64-bit) or 0xC09B (32-bit), 4 GiB from 0."""
    return Segment(
        limit=0xFFFF_FFFF,
        selector=CODE_SELECTOR,
        type=0xB,
        present=1,
        db=int(not long_mode),
        s=1,
        l=int(long_mode),
        g=1,
    )


def _tss(long_mode: bool) -> Segment:
    """Descriptor 0x808B (64-bit) or 0x008B (32-bit, 0x67): a busy TSS at 0."""
    return Segment(
        limit=0xFFFF_FFFF if long_mode else 0x67,
        selector=TSS_SELECTOR,
        type=0xB,
        present=1,
        g=int(long_mode),
    )
