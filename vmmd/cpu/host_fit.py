"""Whether a host can go on with a saved guest: judged before anything is built.

What KVM would refuse later, or worse, take and let the guest die of, is said
here by name and with the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cpu.cpuid import CpuidTable
from vmmd.cpu.features import missing, moved_states
from vmmd.cpu.saved_msrs import by_cpuid
from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vmmd.cpu.cpuid import CpuidEntry
    from vmmd.cpu.state import VcpuState

TSC_TOLERANCE_PPM = 250
"""Two measurements of one processor's frequency may differ by this (QEMU's value)."""

_SHOWN_MSRS = 8


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host offers: KVM's supported CPUID and MSRs, its struct sizes.

    ``xsave_size`` are the bytes of its ``struct kvm_xsave``. ``as_seen`` is what
    a vCPU that was given ``cpuid`` has: more than that where guests see the
    processor itself. It is asked for only if ``cpuid`` does not do.
    """

    architecture: str
    cpuid: tuple[CpuidEntry, ...]
    msrs: frozenset[int]
    xsave_size: int
    max_vcpus: int
    as_seen: Callable[[], tuple[CpuidEntry, ...]]


def check(host: HostFacts, architecture: str, vcpus: Sequence[VcpuState]) -> None:
    """SnapshotError saying all that does not fit; ``vcpus`` as they were saved."""
    if architecture != host.architecture:
        raise SnapshotError(
            f"The snapshot is of an {architecture} guest and this host is"
            f" {host.architecture}: load it on a host of its own architecture."
        )
    faults = tuple(dict.fromkeys(_faults(host, vcpus)))
    if faults:
        raise SnapshotError(
            f"This host cannot go on with the snapshot: {'; '.join(faults)}."
        )


def _faults(host: HostFacts, vcpus: Sequence[VcpuState]) -> Iterator[str]:
    if len(vcpus) > host.max_vcpus:
        yield (
            f"it has {len(vcpus)} vCPUs and this KVM allows {host.max_vcpus}:"
            " load it where KVM allows more"
        )
    guests = [CpuidTable(vcpu.cpuid) for vcpu in vcpus]
    tables = [CpuidTable(host.cpuid)]
    if any(missing(guest, *tables) for guest in guests):
        tables.append(CpuidTable(host.as_seen()))
    for vcpu, guest in zip(vcpus, guests, strict=True):
        yield from _vcpu_faults(host, tables, vcpu, guest)


def _vcpu_faults(
    host: HostFacts, tables: Sequence[CpuidTable], vcpu: VcpuState, guest: CpuidTable
) -> Iterator[str]:
    ours, theirs = _vendor(guest), _vendor(tables[0])
    if ours != theirs:
        yield (
            f"it was taken on a processor of {ours} and this one is of {theirs}:"
            f" load it on a host with a processor of {ours}"
        )
        return
    yield from _cpuid_faults(guest, tables)
    if len(vcpu.xsave.region) > host.xsave_size:
        yield (
            f"its XSAVE state has {len(vcpu.xsave.region)} bytes and this KVM keeps"
            f" {host.xsave_size}: load it with the CPU and kernel that saved it, or newer"
        )
    if unknown := _unknown_msrs(host, vcpu):
        shown = ", ".join(f"{index:#x}" for index in unknown[:_SHOWN_MSRS])
        more = " and others" if unknown[_SHOWN_MSRS:] else ""
        yield (
            f"it has model-specific registers that this KVM does not know: {shown}"
            f"{more}: load it with the CPU and kernel that saved it, or newer"
        )


def _cpuid_faults(guest: CpuidTable, hosts: Sequence[CpuidTable]) -> Iterator[str]:
    if lacking := missing(guest, *hosts):
        yield (
            "its processor has features that this host does not offer:"
            f" {', '.join(lacking)}: load it on a host that has them"
        )
    if moved := moved_states(guest, hosts[0]):
        yield (
            f"this host's processor keeps the {', '.join(moved)} in another layout:"
            " load it on a host with the processor that saved it"
        )


def _vendor(table: CpuidTable) -> str:
    return table.vendor().decode("ascii", "backslashreplace")


def _unknown_msrs(host: HostFacts, vcpu: VcpuState) -> list[int]:
    saved = {index for index, _ in vcpu.msrs}
    return sorted(saved - host.msrs - set(by_cpuid(vcpu.cpuid)))


def must_scale(saved_khz: int, host_khz: int) -> bool:
    """Whether the TSC of a guest saved at ``saved_khz`` must be scaled here."""
    difference = abs(host_khz - saved_khz)
    return difference > saved_khz * TSC_TOLERANCE_PPM // 1_000_000


def cannot_scale(saved_khz: int, host_khz: int, why: str) -> SnapshotError:
    """The refusal where KVM does not scale the TSC."""
    return SnapshotError(
        f"Could not set TSC scaling within the snapshot: {why}: the guest's TSC runs"
        f" at {saved_khz} kHz, this host's at {host_khz} kHz, and they differ by more"
        f" than {TSC_TOLERANCE_PPM} ppm; load it on a host of the same frequency, or"
        " whose KVM has KVM_CAP_TSC_CONTROL and that range."
    )
