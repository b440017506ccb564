"""What our own paths below ``/vmmd/`` show of a machine that was started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd import actions as a

if TYPE_CHECKING:
    from vmmd.loop.supervisor import Supervisor


async def view_of(
    supervisor: Supervisor,
    action: a.GetState | a.GetSnapshotTargets | a.GetSnapshotProgress,
) -> a.JsonValue:
    """The answer's body. ConfigError if the machine cannot be read."""
    match action:
        case a.GetState():
            return await _state(supervisor)
        case a.GetSnapshotTargets():
            return await _targets(supervisor)
        case a.GetSnapshotProgress():
            progress = supervisor.progress
            done, size = (progress.done, progress.size) if progress else (0, 0)
            return {"active": bool(progress), "done_bytes": done, "size_bytes": size}


async def _state(supervisor: Supervisor) -> a.JsonValue:
    from vmmd.loop.state_view import view

    async with supervisor.stopping:
        return await view(supervisor.running(), supervisor.phase.value)


async def _targets(supervisor: Supervisor) -> a.JsonValue:
    from vmmd.loop.snapshot_targets import targets
    from vmmd.loop.snapshots import source_of

    async with supervisor.stopping:
        return await targets(source_of(supervisor))
