"""Bodies that are not configuration: what a request holds before it is an action."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.config import ActionType, VmStateChange
    from vmmd.snapshot_params import (
        DriveOverride,
        MemBackendConfig,
        NetworkOverride,
        VsockOverride,
    )


@dataclass(frozen=True, slots=True)
class SnapshotLoadConfig:
    """The body of ``PUT /snapshot/load``, deprecated fields included."""

    snapshot_path: str
    mem_file_path: str | None
    mem_backend: MemBackendConfig | None
    enable_diff_snapshots: bool
    track_dirty_pages: bool
    resume_vm: bool
    network_overrides: tuple[NetworkOverride, ...]
    vsock_override: VsockOverride | None
    clock_realtime: bool


@dataclass(frozen=True, slots=True)
class VmmdSnapshotLoadConfig(SnapshotLoadConfig):
    """The body of ``PUT /vmmd/snapshot/load``."""

    drive_overrides: tuple[DriveOverride, ...]


@dataclass(frozen=True, slots=True)
class VmUpdate:
    """``PATCH /vm``."""

    state: VmStateChange


@dataclass(frozen=True, slots=True)
class ActionBody:
    """``PUT /actions``."""

    action_type: ActionType
