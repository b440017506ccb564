"""What the supervisor does of snapshots: phases, prefixes, log lines, the end.

The work is in ``snapshot_create`` and ``snapshot_load``.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

from vmmd import actions as a
from vmmd.errors import ConfigError, ExitError, HostError, VmmdError
from vmmd.lifecycle import Phase
from vmmd.loop import preload
from vmmd.loop.took import took
from vmmd.snapshot_params import SnapshotType

if TYPE_CHECKING:
    from vmmd.loop.logger import Channel
    from vmmd.loop.snapshot_create import Source
    from vmmd.loop.supervisor import Supervisor
    from vmmd.snapshot_params import SnapshotCreateParams, SnapshotLoadParams

NOT_ALLOWED = (
    "Loading a microVM snapshot not allowed after configuring boot-specific resources."
)
_DIFF_PREVIEW = "[DevPreview] Virtual machine diff snapshots is in development preview."
_LOAD = "Load snapshot error: "
_CREATE = "Create snapshot error: "
_REPORT_S = 1.0  # between two lines on how far a create is


async def perform(
    supervisor: Supervisor, action: a.CreateSnapshot | a.LoadSnapshot
) -> None:
    """Carry out a create or a load. ConfigError has the whole fault_message."""
    match action:
        case a.CreateSnapshot(params):
            await _create(supervisor, params)
        case a.LoadSnapshot(params):
            await _load(supervisor, params)


async def _create(supervisor: Supervisor, params: SnapshotCreateParams) -> None:
    from vmmd.loop.snapshot_create import Watch, create  # a load does not need them

    log = supervisor.options.logger.channel("main", "vmmd::snapshot")
    if params.snapshot_type is SnapshotType.DIFF:
        log.warn(_DIFF_PREVIEW)
    name = params.snapshot_type.lower()
    supervisor.progress = progress = Progress(log)
    try:
        with took(log.info, f"create {name} snapshot"):
            await create(source_of(supervisor), params, Watch(log.warn, progress))
    except VmmdError as error:
        # As of 1.5, which had the field, where it is given: no prefix.
        prefix = _CREATE if params.version is None else ""
        raise ConfigError(f"{prefix}{error}") from error
    finally:
        supervisor.progress = None


def source_of(supervisor: Supervisor) -> Source:
    """What the supervisor's machine is saved from."""
    from vmmd.loop.lineage import Lineage
    from vmmd.loop.snapshot_create import Source

    board = supervisor.running()
    if supervisor.lineage is None:
        supervisor.lineage = Lineage(board, supervisor.loaded)
    paused = supervisor.phase is Phase.PAUSED
    return Source(board, supervisor.resources, supervisor.lineage, paused)


async def _load(supervisor: Supervisor, params: SnapshotLoadParams) -> None:
    log = supervisor.options.logger.channel("main", "vmmd::snapshot")
    if supervisor.boot_path:
        log.info(NOT_ALLOWED)
        raise ConfigError(_LOAD + NOT_ALLOWED)
    supervisor.loading = True  # for good: the process has its guest then, or ends
    with took(log.debug, "load snapshot"):
        await _take_up(supervisor, params, log)


async def _take_up(
    supervisor: Supervisor, params: SnapshotLoadParams, log: Channel
) -> None:
    """Load it, and go on where it stood. A failure ends the process."""
    preload.load(preload.import_load)  # unless it is there already
    from vmmd.loop.snapshot_load import load  # a create does not need it

    gc.disable()  # what is made now stays: there is nothing to find in it
    try:
        loaded = await load(params, log.warn)
        supervisor.resources = loaded.resources
        supervisor.loaded = loaded
        await supervisor.adopt(loaded.board)
    except (ConfigError, HostError) as error:
        supervisor.fail(
            ExitError(
                "RunWithApiError error: Failed to build MicroVM: "
                "Loading snapshot failed..",
                "RunWithApi(BuildMicroVmError(Restore))",
            )
        )
        raise ConfigError(f"{_LOAD}{error}") from error
    finally:
        gc.freeze()
        gc.enable()
    supervisor.phase = Phase.PAUSED
    if params.resume_vm:
        supervisor.let_go()


class Progress:
    """How far a create is; says it once in a while in the log.

    ``done`` and ``size`` are bytes of memory, both 0 before that is written.
    """

    def __init__(self, log: Channel) -> None:
        self.done = self.size = 0
        self._log = log
        self._said_s = time.monotonic()

    def __call__(self, done: int, size: int) -> None:
        """``done`` of ``size`` bytes of memory have been passed."""
        self.done, self.size = done, size
        now_s = time.monotonic()
        if now_s - self._said_s >= _REPORT_S:
            self._said_s = now_s
            mib, percent = size >> 20, 100 * done // size
            self._log.info(f"Snapshot: {percent} % of {mib} MiB of memory.")
