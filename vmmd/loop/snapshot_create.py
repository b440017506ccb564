"""From a paused board to a snapshot: ``PUT /snapshot/create``.

Whatever can be refused is refused before anything changes on disk or in a
device: the target version, the phase, the translation of the whole state, the
paths, the space. Then disks are brought out, memory is written beside its target
(and meanwhile the state read, where nothing can refuse it), then the state; the
names change last. A failure leaves the guest paused and usable, with every dirty
page still known. Texts are Firecracker's.
"""

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from functools import cache, partial
from typing import TYPE_CHECKING

import trio

from vmmd.cpu.cpuid import CpuidTable
from vmmd.errors import ConfigError
from vmmd.frozen import dataclass
from vmmd.loop.collect import collect
from vmmd.loop.memory_file import Parent, diff_plan, full_plan, write
from vmmd.loop.snapshot_files import SnapshotFiles
from vmmd.saved import RECORDS, records
from vmmd.snapshot_params import SnapshotType
from vmmd.state.codec import pack
from vmmd.state.snapshot import Header, SnapshotFile, assemble, encode_entries
from vmmd.state.target import TargetDevice, check_target
from vmmd.state.translate import translate_down

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.loop.board import Board
    from vmmd.loop.lineage import Lineage
    from vmmd.loop.memory_file import Progress
    from vmmd.loop.memory_pass import Plan
    from vmmd.resources.store import VmResources
    from vmmd.saved import Saved
    from vmmd.snapshot_params import SnapshotCreateParams

UNTRACKED = (
    "The requested operation is not supported: Diff snapshots are not allowed on uVMs"
    " with dirty page tracking disabled."
)
RUNNING = (
    "Cannot save the microVM state: Operation not allowed: save/restore unavailable"
    " while running"
)


def _nothing(step: str) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, slots=True)
class Source:
    """The machine that a snapshot is made of."""

    board: Board
    resources: VmResources
    lineage: Lineage
    paused: bool

    @property
    def devices(self) -> tuple[tuple[str, str], ...]:
        """Kind and id of each virtio device, in the order of their slots."""
        names = (attached.name for attached in self.board.machine.attached)
        return tuple((name.partition("/")[0], name.partition("/")[2]) for name in names)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who hears of a create: lines for the log, memory's progress, its steps."""

    warn: Callable[[str], None]
    progress: Progress
    at_step: Callable[[str], None] = _nothing


async def create(source: Source, params: SnapshotCreateParams, watch: Watch) -> None:
    """Write a snapshot. The machine is as it was, and stays paused.

    ConfigError and HostError with Firecracker's text; nothing is left on disk
    then but what was there before.
    """
    release = _checked_release(source, params)
    read_once = cache(partial(_packed_state, source, release, watch))
    if params.version is not None:
        read_once()  # a translation may refuse; else this can wait for a better time
    snapshot_id = str(uuid.uuid4())
    in_use = {
        drive.config.path_on_host: f"drive {drive.config.drive_id}"
        for drive in source.resources.drives
        if drive.config.path_on_host is not None
    }
    with SnapshotFiles.check(
        params.snapshot_path,
        params.mem_file_path,
        snapshot_id,
        in_use,
        watch.at_step,
    ) as files:
        for pump in source.board.pumps.values():
            await pump.sync()
        fd, plan = await _plan_memory(source, params, files)
        memory = source.board.machine.memory
        manifest = await write(memory, fd, plan, watch.progress, read_once)
        header, entries = read_once()
        header = dataclasses.replace(
            header,
            snapshot_id=snapshot_id,
            parent_id=manifest.parent_id,
            memory=manifest.to_plain(),
        )
        with trio.CancelScope(shield=True):
            await files.commit(assemble(header, entries))
            source.lineage.committed(snapshot_id, manifest)


def _checked_release(source: Source, params: SnapshotCreateParams) -> str:
    """The release to save for; or why nothing can be saved now."""
    diff = params.snapshot_type is SnapshotType.DIFF
    if params.version is not None and diff and not source.lineage.dirty.tracked:
        raise ConfigError(UNTRACKED)
    target = check_target(params.version, _target_devices(source))
    if not source.paused:
        raise ConfigError(RUNNING)
    return target.release


def _packed_state(source: Source, release: str, watch: Watch) -> tuple[Header, bytes]:
    """Everything but memory, as that release has it; or why it cannot be."""
    state, lost = translate_down(read_state(source), release, RECORDS)
    for item in lost:
        watch.warn(item.loss.text)
    return state.header, encode_entries(state.entries)


def read_state(source: Source) -> SnapshotFile:
    """Everything of a paused machine but memory, in its newest records."""
    saved = collect(source.board, source.resources)
    entries = tuple(pack(record, record_id) for record_id, record in records(saved))
    return SnapshotFile(_header(source, saved), entries)


def _target_devices(source: Source) -> list[TargetDevice]:
    transports = (attached.transport for attached in source.board.machine.attached)
    return [
        TargetDevice(kind, transport.driver_features)
        for (kind, _), transport in zip(source.devices, transports, strict=True)
    ]


def _header(source: Source, saved: Saved) -> Header:
    """What the file will say of itself, but for the snapshot's own part of it."""
    table = CpuidTable(saved.vcpus[0].cpuid)
    return Header(
        snapshot_id="",
        memory={},
        devices=source.devices,
        time=int(time.time()),
        arch=os.uname().machine,
        cpu_vendor=table.vendor().decode("ascii", "backslashreplace"),
        cpu_model=table.brand().decode("ascii", "backslashreplace"),
        tsc_khz=saved.vcpus[0].tsc_khz,
        kernel=os.uname().release,
    )


async def _plan_memory(
    source: Source, params: SnapshotCreateParams, files: SnapshotFiles
) -> tuple[int, Plan]:
    """The temporary file to write memory to, and what of it."""
    memory, lineage = source.board.machine.memory, source.lineage
    if params.snapshot_type is SnapshotType.FULL:
        plan = full_plan(memory, lineage.origin)
        lineage.dirty.collect()  # what a Full holds, the next Diff need not
    else:
        onto = await files.find_onto(memory.size, lineage.parent_id, lineage.manifest)
        parent = Parent(lineage.parent_id, onto)
        plan = diff_plan(memory, lineage.dirty, parent, lineage.origin)
    files.check_space(plan.bytes_needed)
    return await files.open_memory(), plan
