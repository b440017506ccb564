"""From a snapshot to a board: ``PUT /snapshot/load``.

Everything is read and checked before KVM is asked for a VM: the file, its
records, the host, then memory, disks and taps. What fails leaves nothing open.
Texts are Firecracker's where it has them; they follow ``Load snapshot error: ``.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vmmd.boot import layout
from vmmd.config import HugePages
from vmmd.errors import ConfigError, HostError, SnapshotError, VmmdError
from vmmd.frozen import dataclass
from vmmd.loop import spare
from vmmd.loop.assemble import Parts, assemble, block_name, net_name
from vmmd.loop.board import KvmState
from vmmd.loop.files import HostFile, map_snapshot_memory, unmap_guest_memory
from vmmd.loop.host_fit import check_host
from vmmd.loop.origin import BaseFile, Origin, get_id, open_memory_file
from vmmd.resources.drives import Drive
from vmmd.resources.fault import ResourceFault
from vmmd.resources.nets import Net, open_net
from vmmd.resources.restored import drive_config, mmds_config, net_config
from vmmd.resources.store import VmResources
from vmmd.rust import io_error
from vmmd.saved import RECORDS, Saved, saved_of
from vmmd.snapshot_params import MemBackendType
from vmmd.state.damage import UNREADABLE, UnreadableFileError
from vmmd.state.snapshot import MAX_FILE_SIZE, parse
from vmmd.state.translate import upgraded
from vmmd.virtio.block import BlockState
from vmmd.virtio.net import NetState
from vmmd.vm_info import boot_source, machine_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmmd.config import MmdsConfig
    from vmmd.loop.board import Board
    from vmmd.loop.kvm import Kvm
    from vmmd.memory import GuestMemory
    from vmmd.snapshot_params import DriveOverride, SnapshotLoadParams
    from vmmd.state.manifest import MemoryManifest
    from vmmd.state.snapshot import Header, SnapshotFile

_RESTORE = "Failed to restore from snapshot: "
_FILE = "Failed to get snapshot state from file: "
_STATE = "Failed to load snapshot state from file: "
_BUILD = "Failed to build microVM from snapshot: "
_MEMORY = "Failed to load guest memory: Error creating guest memory from "
_USUAL_SIZE = 1 << 17
_HUGE = (
    "Cannot restore hugetlbfs backed snapshot by mapping the memory file. Please use"
    " uffd."
)
_DEVICES = "Failed to restore devices: Error restoring MMIO devices: "
_BACKING = "Block: Virtio backend error: Error manipulating the backing file: "


_NET_FAULT = "Network config error: Could not create the network device: "
_UNMERGED = (
    "has the pages of a Diff alone: merge it onto its parent's memory file first"
    " (`vmmd snapshot rebase`, which also writes the state file to load it with)"
)
_NOT_MERGED = (
    "does not have the pages of the Diff that the state file is of: merge them"
    " onto it first (`vmmd snapshot rebase`)"
)
_CHAIN = (
    "was the memory of snapshot {} and has the pages of a Diff on {}: taken for a"
    " chain that another tool has merged"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load gives: the board, parked, and what it was made from.

    ``manifest`` is of that snapshot's memory. ``close`` lets go of the memory file
    or page server of ``origin``, once the board is closed.
    """

    board: Board
    resources: VmResources
    snapshot_id: str
    manifest: MemoryManifest
    origin: Origin
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a state file holds, checked, with the overrides in ``saved``.

    ``notes`` are lines for the log.
    """

    header: Header
    manifest: MemoryManifest
    saved: Saved
    notes: tuple[str, ...]


async def load(params: SnapshotLoadParams, log: Callable[[str], None]) -> Loaded:
    """Build the board of a snapshot, its guest not yet running.

    ConfigError says why it cannot be; nothing is left open then.
    """
    with _prefixed(_FILE):
        data = _content(params.snapshot_path)
    found = understood(data, params, log)
    header, saved = found.header, found.saved
    for note in found.notes:
        log(note)
    with ExitStack() as undo, closing(_kvm()) as kvm:
        with _prefixed(_BUILD):
            check_host(saved.vcpus, header.arch)
        memory, origin, close = await _memory(params, found, undo, log)
        with _prefixed(_BUILD):
            resources = _resources(saved, params, undo, log)
            state = KvmState(saved.vcpus, saved.vm, params.clock_realtime)
            parts = Parts(memory, state, saved.machine)
            board = assemble(kvm, resources, parts, log)
        undo.pop_all()
    for pump in board.pumps.values():
        await pump.quiesce()  # until the guest goes on
    snapshot_id = header.snapshot_id
    return Loaded(board, resources, snapshot_id, found.manifest, origin, close)


def _kvm() -> Kvm:
    with _prefixed(_BUILD):
        return spare.take()


@contextmanager
def _prefixed(prefix: str) -> Iterator[None]:
    """Say before a fault, as Firecracker does, in which part of the load it is."""
    try:
        yield
    except VmmdError as error:
        raise ConfigError(f"{_RESTORE}{prefix}{error}") from error


# -- The state file


def understood(
    data: bytes, params: SnapshotLoadParams, log: Callable[[str], None]
) -> Found:
    """All that the bytes of a state file hold. ConfigError says what is wrong."""
    with _prefixed(f"{_FILE}{_STATE}"):
        found = upgraded(_parsed(data, params, log), RECORDS)
        saved = saved_of(found.records)
        manifest = found.header.manifest
        _check_regions(manifest, saved)
    with _prefixed(_FILE):
        saved = _overridden(saved, params)
    return Found(found.header, manifest, saved, found.notes)


def _content(path: str) -> bytes:
    """The bytes of a state file, or as many as show that it is too long."""
    try:
        file = HostFile.open(path)
    except OSError as error:
        text = f"Failed to open snapshot file: {io_error(error)}"
        raise HostError(text) from error
    try:
        start = file.pread(_USUAL_SIZE, 0)
        # What is no regular file has no size to ask for.
        return start if len(start) < _USUAL_SIZE else file.pread(MAX_FILE_SIZE + 1, 0)
    except OSError as error:
        raise HostError(f"{_STATE}IO Error: {io_error(error)}") from error
    finally:
        file.close()


def _parsed(
    data: bytes, params: SnapshotLoadParams, log: Callable[[str], None]
) -> SnapshotFile:
    """Of what cannot be read the answer has Firecracker's words, the log ours."""
    try:
        return parse(data)
    except UnreadableFileError as error:
        log(f"{params.snapshot_path}: {error}")
        raise SnapshotError(UNREADABLE) from error


def _check_regions(manifest: MemoryManifest, saved: Saved) -> None:
    expected = layout.memory_regions(saved.info.mem_size_mib)
    if manifest.regions != tuple(expected):
        raise SnapshotError(
            "memory manifest: regions are not those of a machine with "
            f"mem_size_mib {saved.info.mem_size_mib}"
        )


def _overridden(saved: Saved, params: SnapshotLoadParams) -> Saved:
    """The machine with other files and taps. HostError names who is not there."""
    other = (params.network_overrides, params.vsock_override, params.drive_overrides)
    if not any(other):
        return saved
    devices = dict(saved.machine.devices)
    for net in params.network_overrides:
        state = devices.get(net_name(net.iface_id))
        if not isinstance(state, NetState):
            raise SnapshotError("Unknown Network Device.")
        devices[net_name(net.iface_id)] = replace(
            state, host_dev_name=net.host_dev_name
        )
    if params.vsock_override is not None:
        raise SnapshotError("Unknown Vsock Device.")
    for drive in params.drive_overrides:
        _override_drive(devices, drive)
    machine = replace(saved.machine, devices=tuple(devices.items()))
    return replace(saved, machine=machine)


def _override_drive(devices: dict[str, object], override: DriveOverride) -> None:
    name = block_name(override.drive_id)
    state = devices.get(name)
    if not isinstance(state, BlockState):
        drives = [key.partition("/")[2] for key in devices if key.startswith("block/")]
        raise SnapshotError(
            f"drive_overrides: there is no drive {override.drive_id!r} in the "
            f"snapshot; its drives: {', '.join(drives) or 'none'}"
        )
    devices[name] = replace(state, path_on_host=override.path_on_host)


# -- Memory, disks, taps


async def _memory(
    params: SnapshotLoadParams,
    found: Found,
    undo: ExitStack,
    log: Callable[[str], None],
) -> tuple[GuestMemory, Origin, Callable[[], None]]:
    """Guest memory, where its pages come from, and what lets go of that."""
    manifest, path = found.manifest, params.mem_backend.backend_path
    huge = found.saved.info.huge_pages != HugePages.NONE.value
    if params.mem_backend.backend_type is MemBackendType.UFFD:
        from vmmd.loop.uffd import map_served_memory  # one of two ways

        with _prefixed(f"{_MEMORY}uffd: "):
            memory, server = await map_served_memory(
                manifest.regions, path, huge_pages=huge
            )
        undo.callback(server.close)
        undo.callback(unmap_guest_memory, memory)
        return memory, Origin(served=True), server.close
    with _prefixed(f"{_MEMORY}file: "):
        if huge:
            raise SnapshotError(_HUGE)
        fd = await _open_memory(path, found.header.snapshot_id, manifest, log)
        undo.callback(os.close, fd)
        memory = map_snapshot_memory(manifest.regions, fd)
        undo.callback(unmap_guest_memory, memory)
    return memory, Origin(BaseFile(fd, manifest)), partial(os.close, fd)


async def _open_memory(
    path: str, snapshot_id: str, manifest: MemoryManifest, log: Callable[[str], None]
) -> int:
    """The memory file, which must be this snapshot's, and whole.

    A Diff lacks the pages of its parent. Merged onto it by a tool that knows no
    ids, the file still has the parent's, or of a chain that of its base: whether
    it was is seen by the pages, where the Diff has any.
    """
    if manifest.kind == "Full" or manifest.parent_id is None:
        return open_memory_file(path, manifest.size, snapshot_id)
    found = get_id(path)
    if found == snapshot_id:
        raise SnapshotError(f"Failed to restore guest memory: {path} {_UNMERGED}")
    from vmmd.loop.memory_file import verify  # of a Diff alone

    expected = None if manifest.data_pages else manifest.parent_id
    fd = open_memory_file(path, manifest.size, expected)
    if await verify(fd, manifest):
        os.close(fd)
        raise SnapshotError(f"Failed to restore guest memory: {path} {_NOT_MERGED}")
    if found not in (None, manifest.parent_id):
        log(f"{path} {_CHAIN.format(found, manifest.parent_id)}")
    return fd


def _resources(
    saved: Saved,
    params: SnapshotLoadParams,
    undo: ExitStack,
    log: Callable[[str], None],
) -> VmResources:
    """The configuration, its files open: it is shown and changed as a boot's is."""
    drives: list[Drive] = []
    nets: list[Net] = []
    for _, state in saved.machine.devices:
        if isinstance(state, BlockState):
            drives.append(_drive(state, log))
            undo.callback(drives[-1].file.close)
        elif isinstance(state, NetState):
            nets.append(_net(state))
            undo.callback(nets[-1].tap.close)
    track = params.track_dirty_pages
    return VmResources(
        machine=machine_config(saved.info, track_dirty_pages=track),
        boot=boot_source(saved.info),
        drives=tuple(drives),
        nets=tuple(nets),
        mmds=_mmds(saved),
    )


def _mmds(saved: Saved) -> MmdsConfig | None:
    states = (state for _, state in saved.machine.devices)
    return mmds_config(saved.mmds, [s for s in states if isinstance(s, NetState)])


def _drive(state: BlockState, log: Callable[[str], None]) -> Drive:
    config = drive_config(state)
    try:
        file = HostFile.open_disk(state.path_on_host, not state.is_read_only, log)
    except OSError as error:
        text = f"{_DEVICES}{_BACKING}{io_error(error)} {state.path_on_host}"
        raise HostError(text) from error
    return Drive(config, file)


def _net(state: NetState) -> Net:
    from vmmd.loop.tap import Tap  # many machines have no network

    try:
        return open_net(net_config(state), Tap.open)
    except ResourceFault as fault:
        inner = str(fault).removeprefix(_NET_FAULT)
        text = f"{_DEVICES}Net: Failed to create a network device: {inner}"
        raise HostError(text) from fault
