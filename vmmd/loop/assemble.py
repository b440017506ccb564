"""From resources and a state to a board: the one way to build a machine.

A boot makes the state of its own (``vmmd.loop.start``), a load takes it from a
snapshot. What is built here is the same, down to the order.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from vmmd.frozen import dataclass
from vmmd.limiter import cold
from vmmd.loop.board import Board, KvmState
from vmmd.loop.console import Console
from vmmd.loop.disk import BackingFile, Disk
from vmmd.loop.files import HostFile
from vmmd.machine import COLD, Machine, MachineState
from vmmd.virtio.block import BlockDevice, BlockState

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.loop.kvm import Kvm
    from vmmd.loop.pump import Pump
    from vmmd.memory import GuestMemory
    from vmmd.resources.drives import Drive
    from vmmd.resources.nets import Net
    from vmmd.resources.store import VmResources


@dataclass(frozen=True, slots=True)
class Parts:
    """What a board starts from, besides its configuration.

    ``machine`` has the state of chips, transports and devices; all cold for a
    boot. ``memory`` stays the caller's until a board was built with it.
    """

    memory: GuestMemory
    kvm: KvmState
    machine: MachineState = COLD


def block_name(drive_id: str) -> str:
    """The name under which a drive is attached; no other device has it."""
    return f"block/{drive_id}"


def net_name(iface_id: str) -> str:
    """The name under which an interface is attached, likewise."""
    return f"net/{iface_id}"


def device_names(resources: VmResources) -> tuple[str, ...]:
    """The names of all devices, in the order of their slots."""
    return (
        *(block_name(drive.config.drive_id) for drive in resources.drives),
        *(net_name(net.config.iface_id) for net in resources.nets),
    )


def assemble(
    kvm: Kvm,
    resources: VmResources,
    parts: Parts,
    log: Callable[[str], None],
    *,
    boot_timer: bool = False,
    stdio: tuple[int, int] = (0, 1),
) -> Board:
    """Build the board; its threads are not started.

    HostError says what cannot be; nothing is left open then but ``memory`` and
    the files of ``resources``, which stay the caller's: pumps have duplicates.
    """
    with ExitStack() as undo:
        pumps = _pumps(resources, parts.machine, log, undo)
        devices = [(name, pump.device) for name, pump in pumps.items()]
        machine = Machine(parts.memory, devices, parts.machine, boot_timer=boot_timer)
        console = Console(machine.serial, *stdio)
        undo.callback(console.close)
        track = resources.machine.track_dirty_pages
        board = Board(kvm, machine, parts.kvm, console, pumps, track_dirty_pages=track)
        undo.pop_all()
    return board


def _pumps(
    resources: VmResources,
    state: MachineState,
    log: Callable[[str], None],
    undo: ExitStack,
) -> dict[str, Pump]:
    """A pump per device, in the order of their slots."""
    pumps: dict[str, Pump] = {}
    for drive in resources.drives:
        name = block_name(drive.config.drive_id)
        saved = state.device(name)
        record = saved if isinstance(saved, BlockState) else _block_state(drive)
        pumps[name] = _disk(drive, record, log, undo)
    for net in resources.nets:
        name = net_name(net.config.iface_id)
        pumps[name] = _nic(net, state.device(name), log, undo)
    return pumps


def _disk(
    drive: Drive, state: BlockState, log: Callable[[str], None], undo: ExitStack
) -> Disk:
    """A block device over a duplicate of the drive's file."""
    file = backing_file(drive)
    undo.callback(file.close)
    return Disk(BlockDevice.restore(state, file.backing), file, log)


def _nic(net: Net, saved: object, log: Callable[[str], None], undo: ExitStack) -> Pump:
    """An interface over a duplicate of its tap's descriptor."""
    from vmmd.loop.net import nic  # many machines have no network

    made = nic(net, saved, log)
    undo.callback(made.tap.close)
    return made


def _block_state(drive: Drive) -> BlockState:
    """A drive's state at a cold boot."""
    config = drive.config
    return BlockState(
        drive_id=config.drive_id,
        path_on_host=host_file(drive.file).path,
        is_read_only=bool(config.is_read_only),
        is_root_device=config.is_root_device,
        partuuid=config.partuuid,
        cache_type=config.cache_type.value,
        io_engine="Sync" if config.io_engine is None else config.io_engine.value,
        limiter=cold(config.rate_limiter),
    )


def backing_file(drive: Drive) -> BackingFile:
    """A duplicate of the drive's file, for its device."""
    return BackingFile.of(host_file(drive.file))


def host_file(file: object) -> HostFile:
    """The open file that resources hold. TypeError: somebody else opened it."""
    if not isinstance(file, HostFile):
        raise TypeError("resources hold files that HostFile.open did not open")
    return file
