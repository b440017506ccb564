"""A small state file to put records in."""

from __future__ import annotations

from vmmd.state.manifest import MemoryManifest
from vmmd.state.snapshot import Entry, Header, SnapshotFile, canonical

MANIFEST = MemoryManifest(
    size=2 << 20,
    regions=((0, 2 << 20),),
    kind="Full",
    parent_id=None,
    pages=b"\xff" * 64,
    checksums=bytes(4),
    unverified=b"\x01",
)
HEADER = Header(
    snapshot_id="5eed",
    parent_id="f00d",
    target_version="1.16.0",
    producer_version="0.1.0",
    cpu_vendor="AuthenticAMD",
    cpu_model="AMD EPYC",
    kernel="6.1.0-13-amd64",
    memory=canonical(MANIFEST.to_plain()),
    devices=(("block", "rootfs"), ("net", "eth0")),
    time=1_700_000_000,
    tsc_khz=2_000_000,
)


def file_of(*entries: Entry) -> SnapshotFile:
    """A file of these entries, for the newest release."""
    return SnapshotFile(HEADER, entries)
