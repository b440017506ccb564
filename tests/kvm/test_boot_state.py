"""The boot state and this machine's KVM: it takes it, and gives the same back."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Literal

import pytest

from vmmd.boot import layout
from vmmd.boot.image import Entry
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.cpuid import pack_cpuid, unpack_cpuid
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Fpu, Xcrs, Xsave
from vmmd.cpu.lapic import APIC_LVT0, APIC_LVT1, Lapic
from vmmd.cpu.msrs import MSR_IA32_TSC
from vmmd.cpu.registers import DebugRegs, MpState, Regs, Sregs
from vmmd.cpu.topology import Topology
from vmmd.loop.kvm import Kvm
from vmmd.loop.vcpu_state import set_state
from vmmd.loop.vcpufd import VcpuPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.kvm_structs import KvmStruct
    from vmmd.cpu.state import VcpuState
    from vmmd.loop.vcpufd import VcpuFd

COUNT = 3
RECORDS: dict[VcpuPart, type[KvmStruct]] = {
    VcpuPart.REGS: Regs,
    VcpuPart.SREGS: Sregs,
    VcpuPart.FPU: Fpu,
    VcpuPart.LAPIC: Lapic,
    VcpuPart.MP_STATE: MpState,
    VcpuPart.VCPU_EVENTS: VcpuEvents,
    VcpuPart.DEBUGREGS: DebugRegs,
    VcpuPart.XCRS: Xcrs,
    VcpuPart.XSAVE: Xsave,
}

Booted = list[tuple["VcpuFd", "VcpuState"]]


@pytest.fixture(params=["linux64", "pvh"])
def booted(request: pytest.FixtureRequest) -> Iterator[Booted]:
    protocol: Literal["linux64", "pvh"] = request.param
    entry = Entry(protocol, 0x100_0200, 0x7000)
    with closing(Kvm.open()) as kvm, closing(kvm.create_vm()) as vm:
        vm.set_tss_addr(layout.KVM_TSS)
        vm.set_identity_map_addr(layout.KVM_IDENTITY_MAP)
        vm.create_irqchip()
        supported = unpack_cpuid(kvm.supported_cpuid())
        vcpus = [vm.create_vcpu(index) for index in range(COUNT)]
        states = [
            boot_vcpu(Topology(index, COUNT), supported, entry)
            for index in range(COUNT)
        ]
        for vcpu, state in zip(vcpus, states, strict=True):
            set_state(vcpu, state)
        yield list(zip(vcpus, states, strict=True))
        for vcpu in vcpus:
            vcpu.close()


@pytest.fixture
def cpus() -> Iterator[set[int]]:
    """The CPUs that this process may use; it may use them again afterwards."""
    allowed = os.sched_getaffinity(0)
    yield allowed
    os.sched_setaffinity(0, allowed)


def test_a_vcpu_does_not_tell_which_cpu_made_it(cpus: set[int]) -> None:
    entry = Entry("linux64", 0x100_0200, 0x7000)
    states = []
    with closing(Kvm.open()) as kvm:
        for cpu in sorted(cpus):
            os.sched_setaffinity(0, {cpu})
            supported = unpack_cpuid(kvm.supported_cpuid())
            states.append([boot_vcpu(Topology(i, 2), supported, entry) for i in (0, 1)])
    assert all(state == states[0] for state in states)


def test_what_was_set_is_what_is_there(booted: Booted) -> None:
    for vcpu, state in booted:
        assert Regs.unpack(vcpu.get(VcpuPart.REGS)) == state.regs
        assert Sregs.unpack(vcpu.get(VcpuPart.SREGS)) == state.sregs
        assert MpState.unpack(vcpu.get(VcpuPart.MP_STATE)) == state.mp_state
        assert DebugRegs.unpack(vcpu.get(VcpuPart.DEBUGREGS)) == state.debug_regs
        assert Xcrs.unpack(vcpu.get(VcpuPart.XCRS)) == state.xcrs
        lapic = Lapic.unpack(vcpu.get(VcpuPart.LAPIC))
        for register in (0x20, APIC_LVT0, APIC_LVT1):
            assert lapic.get(register) == state.lapic.get(register)
        msrs = [msr for msr in state.msrs if msr[0] != MSR_IA32_TSC]
        assert list(vcpu.get_msrs([index for index, _ in msrs])) == msrs


def test_the_fpu_is_as_after_reset(booted: Booted) -> None:
    for vcpu, _ in booted:
        fpu = Fpu.unpack(vcpu.get(VcpuPart.FPU))
        assert (fpu.fcw, fpu.xmm) == (0x37F, bytes(256))
        # KVM_GET_FPU leaves MXCSR out.
        region = Xsave.unpack(vcpu.get(VcpuPart.XSAVE)).region
        assert region[24:28] == (0x1F80).to_bytes(4, "little")


def test_kvm_keeps_each_vcpus_cpuid(booted: Booted) -> None:
    for index, (vcpu, state) in enumerate(booted):
        kept = {
            (entry.function, entry.index): entry
            for entry in unpack_cpuid(vcpu.get_cpuid2())
        }
        assert kept[1, 0].ebx >> 24 == index
        for leaf in (0xB, 0x8000_0002):
            (ours,) = [e for e in state.cpuid if (e.function, e.index) == (leaf, 0)]
            assert kept[leaf, 0] == ours
        assert len(kept) == len(pack_cpuid(state.cpuid)) // 40


@pytest.mark.parametrize("part", VcpuPart)
def test_no_byte_of_kvms_structs_is_lost(booted: Booted, part: VcpuPart) -> None:
    record = RECORDS[part]
    for vcpu, _ in booted:
        raw = vcpu.get(part)
        item = record.unpack(raw)
        if isinstance(item, Xsave):
            assert item.pack(len(raw)) == raw
        else:
            assert item.pack() == raw
        vcpu.set(part, raw)
