"""What ``/snapshot/create`` and ``/snapshot/load`` are asked for: frozen values.

Names, types and order are Firecracker's, as those of :mod:`vmmd.config`.
"""

from __future__ import annotations

from enum import StrEnum

from .frozen import dataclass


class SnapshotType(StrEnum):
    """All of memory, or what changed since the last snapshot."""

    DIFF = "Diff"
    FULL = "Full"


class MemBackendType(StrEnum):
    """What serves guest memory of a loaded snapshot."""

    FILE = "File"
    UFFD = "Uffd"


@dataclass(frozen=True, slots=True)
class SnapshotCreateParams:
    """``PUT /snapshot/create``. ``version``: of the release to save for."""

    snapshot_type: SnapshotType
    snapshot_path: str
    mem_file_path: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class MemBackendConfig:
    """Where guest memory of a loaded snapshot comes from."""

    backend_path: str
    backend_type: MemBackendType


@dataclass(frozen=True, slots=True)
class NetworkOverride:
    """Another tap for a network interface of the snapshot."""

    iface_id: str
    host_dev_name: str


@dataclass(frozen=True, slots=True)
class DriveOverride:
    """Another file for a drive of the snapshot; over ``/vmmd/snapshot/load``."""

    drive_id: str
    path_on_host: str


@dataclass(frozen=True, slots=True)
class VsockOverride:
    """Another socket path for the snapshot's vsock."""

    uds_path: str


@dataclass(frozen=True, slots=True)
class SnapshotLoadParams:
    """What ``PUT /snapshot/load`` comes down to."""

    snapshot_path: str
    mem_backend: MemBackendConfig
    track_dirty_pages: bool
    resume_vm: bool
    network_overrides: tuple[NetworkOverride, ...]
    vsock_override: VsockOverride | None
    clock_realtime: bool
    drive_overrides: tuple[DriveOverride, ...] = ()
