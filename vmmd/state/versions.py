"""Which version of each record belongs to which release: one table.

Releases are Firecracker's, ``major.minor.0``; a record changed where theirs did.
Each has its number, the data version of its files up to 1.6 and counted on from
there. A record keeps its version until the next release that is listed for it;
before the first, that release does not know the kind.
"""

from __future__ import annotations

from vmmd import FIRECRACKER_VERSION

_MINORS = {0: range(23, 26), 1: range(int(FIRECRACKER_VERSION.split(".")[1]) + 1)}

RELEASES: tuple[str, ...] = tuple(
    f"{major}.{minor}.0" for major, minors in _MINORS.items() for minor in minors
)
"""Every release that a snapshot can be for, oldest first."""

OLDEST = RELEASES[0]
CURRENT = RELEASES[-1]

CHANGES: dict[str, tuple[str, ...]] = {
    # smt, cpu_template and the boot source; huge_pages.
    "vm_info": (OLDEST, "1.2.0", "1.7.0"),
    "vm": (OLDEST,),
    "kvm_pit_state2": (OLDEST,),
    "kvm_pit_channel_state": (OLDEST,),
    "kvm_clock_data": (OLDEST,),
    "kvm_pic_state": (OLDEST,),
    "kvm_ioapic_state": (OLDEST,),
    "kvm_ioapic_redirect_entry": (OLDEST,),
    # tsc_khz; more MSRs than one call of KVM takes.
    "vcpu": (OLDEST, "0.25.0", "1.2.0"),
    "kvm_cpuid_entry2": (OLDEST,),
    "kvm_mp_state": (OLDEST,),
    "kvm_regs": (OLDEST,),
    "kvm_sregs": (OLDEST,),
    "kvm_segment": (OLDEST,),
    "kvm_dtable": (OLDEST,),
    # More than 4096 bytes.
    "kvm_xsave": (OLDEST, "1.12.0"),
    "kvm_fpu": (OLDEST,),
    "kvm_xcrs": (OLDEST,),
    "kvm_debugregs": (OLDEST,),
    "kvm_lapic_state": (OLDEST,),
    "kvm_vcpu_events": (OLDEST,),
    # Chips. Releases before the one given had or saved none.
    "serial": ("1.16.0",),
    "i8042": (OLDEST,),
    "power": (OLDEST,),
    "vmgenid": ("1.8.0",),
    "vmclock": ("1.15.0",),
    "vmclock_abi": ("1.15.0",),
    # Devices.
    "mmio": (OLDEST,),
    # Notification suppression.
    "ring": (OLDEST, "1.0.0"),
    # cache_type; io_engine.
    "block": (OLDEST, "0.25.0", "1.0.0"),
    # An address that is optional; mtu.
    "net": (OLDEST, "1.2.0", "1.16.0"),
    # imds_compat.
    "mmds": ("1.1.0", "1.13.0"),
    "rate_limiter": (OLDEST,),
    "token_bucket": (OLDEST,),
}
"""Per kind, the releases that brought version 1, 2, ..."""


def data_version(release: str) -> int | None:
    """The number of a release, 1 for 0.23.0; None if there is no such key."""
    return RELEASES.index(release) + 1 if release in RELEASES else None


def version_for(kind: str, release: str) -> int:
    """The version of a kind's records that a release knows; 0 if it knows none.

    KeyError if the kind is not in the table.
    """
    at = RELEASES.index(release)
    return sum(RELEASES.index(since) <= at for since in CHANGES[kind])
