"""Snapshots over the API of a monitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.unix_api import UnixApi
    from vmmd.actions import JsonValue


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The two files of one, as the monitor sees them."""

    state: Path
    memory: Path


def create_body(
    to: Snapshot, kind: str = "Full", version: str | None = None
) -> dict[str, str]:
    """A create's body, its keys in the order in which Firecracker's tests send them."""
    body = {
        "mem_file_path": str(to.memory),
        "snapshot_path": str(to.state),
        "snapshot_type": kind,
    }
    return body if version is None else body | {"version": version}


def save(api: UnixApi, to: Snapshot, kind: str = "Full") -> None:
    """Pause the guest and save it."""
    api.ok("PATCH", "/vm", {"state": "Paused"})
    api.ok("PUT", "/snapshot/create", create_body(to, kind))


def load(api: UnixApi, what: Snapshot, **more: JsonValue) -> None:
    """Load it and let the guest go on; ``more`` fields of the body."""
    body: dict[str, JsonValue] = {
        "snapshot_path": str(what.state),
        "mem_backend": {"backend_path": str(what.memory), "backend_type": "File"},
        "resume_vm": True,
        "track_dirty_pages": True,
    }
    api.ok("PUT", "/vmmd/snapshot/load", body | more)
