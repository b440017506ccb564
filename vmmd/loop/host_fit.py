"""Asks the host what it offers, for the judgement of ``vmmd.cpu.host_fit``."""

from __future__ import annotations

import os
from contextlib import closing
from functools import cache, partial
from typing import TYPE_CHECKING

from vmmd.cpu.cpuid import unpack_cpuid
from vmmd.cpu.host_fit import HostFacts, check
from vmmd.loop.kvm import Cap, Kvm
from vmmd.loop.vcpufd import XSAVE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmmd.cpu.cpuid import CpuidEntry
    from vmmd.cpu.state import VcpuState


@cache
def host_facts() -> HostFacts:
    """What this host offers; asked for once, since it stays so while we live.

    HostError if there is no KVM to ask.
    """
    with closing(Kvm.open()) as kvm:
        supported = kvm.supported_cpuid()
        return HostFacts(
            architecture=os.uname().machine,
            cpuid=unpack_cpuid(supported),
            as_seen=cache(partial(_as_seen, supported)),
            msrs=frozenset(kvm.msr_index_list()),
            xsave_size=max(XSAVE_BYTES, kvm.check_extension(Cap.XSAVE2)),
            max_vcpus=kvm.check_extension(Cap.MAX_VCPUS),
        )


def _as_seen(supported: bytes) -> tuple[CpuidEntry, ...]:
    """The CPUID of a vCPU that was given ``supported``: made, asked, closed."""
    with (
        closing(Kvm.open()) as kvm,
        closing(kvm.create_vm()) as vm,
        closing(vm.create_vcpu(0)) as vcpu,
    ):
        vcpu.set_cpuid2(supported)
        return unpack_cpuid(vcpu.get_cpuid2())


def check_host(vcpus: Sequence[VcpuState], architecture: str) -> None:
    """SnapshotError unless this host can go on with a guest of these vCPUs.

    ``Kvm.open`` has looked at KVM's capabilities. The TSC's frequency, which KVM
    tells of a vCPU only, is looked at by :func:`vmmd.loop.vcpu_state.set_state`.
    """
    check(host_facts(), architecture, vcpus)
