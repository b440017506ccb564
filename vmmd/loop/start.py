"""From a configuration to a board that is ready to run: InstanceStart.

Everything is checked and built before the first vCPU runs; what fails leaves
nothing behind. The texts are those that follow ``Start microvm error: ``.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from vmmd.boot import cmdline, layout
from vmmd.boot.plan import Board as BoardPlan
from vmmd.boot.plan import plan
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.cpuid import unpack_cpuid
from vmmd.cpu.topology import Topology
from vmmd.errors import ConfigError
from vmmd.loop.board import Board
from vmmd.loop.console import Console
from vmmd.loop.disk import BackingFile, Disk, device_id, knows_nowait
from vmmd.loop.files import (
    HostFile,
    load_segments,
    map_guest_memory,
    unmap_guest_memory,
)
from vmmd.loop.kvm import Kvm
from vmmd.machine import Machine
from vmmd.virtio.block import Backing, BlockDevice, BlockState, size_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vmmd.boot.image import Entry
    from vmmd.boot.layout import MmioSlot
    from vmmd.config import DriveConfig, MachineConfig
    from vmmd.cpu.state import VcpuState
    from vmmd.memory import GuestMemory
    from vmmd.resources.boot import BootSource
    from vmmd.resources.drives import Drive
    from vmmd.resources.store import VmResources

NO_KERNEL = "Cannot start microvm without kernel configuration."


def build(
    resources: VmResources,
    log: Callable[[str], None],
    *,
    boot_timer: bool = False,
    stdio: tuple[int, int] = (0, 1),
) -> Board:
    """Build the board that ``resources`` describe, its guest not yet running.

    ConfigError and HostError say what cannot be; nothing is left open then but
    the files of ``resources``, which stay the caller's: the disks of the board
    have duplicates of them.
    """
    if resources.boot is None:
        raise ConfigError(NO_KERNEL)
    config = resources.machine
    memory = map_guest_memory(layout.memory_regions(config.mem_size_mib))
    with ExitStack() as undo:
        undo.callback(unmap_guest_memory, memory)
        disks = {
            drive.config.drive_id: _disk(drive, log, undo) for drive in resources.drives
        }
        devices = [(name, disk.device) for name, disk in disks.items()]
        machine = Machine(memory, devices, boot_timer=boot_timer)
        slots = tuple(attached.slot for attached in machine.attached)
        line = _command_line(resources, slots)
        entry = _load(resources.boot, config, slots, line, memory)
        with closing(Kvm.open()) as kvm:
            states = _vcpus(kvm, config, entry)
            track = config.track_dirty_pages
            console = Console(machine.serial, *stdio)
            undo.callback(console.close)
            board = Board(kvm, machine, states, console, disks, track_dirty_pages=track)
        undo.pop_all()
    return board


def _command_line(resources: VmResources, slots: Iterable[MmioSlot]) -> bytes:
    devices = [
        cmdline.CmdlineDevice(slot, _root(drive.config))
        for slot, drive in zip(slots, resources.drives, strict=True)
    ]
    boot_args = None if resources.boot is None else resources.boot.config.boot_args
    return cmdline.build(boot_args, devices).encode()


def _root(config: DriveConfig) -> cmdline.RootDrive | None:
    if not config.is_root_device:
        return None
    return cmdline.RootDrive(config.partuuid, bool(config.is_read_only))


def _load(
    boot: BootSource,
    config: MachineConfig,
    slots: tuple[MmioSlot, ...],
    line: bytes,
    memory: GuestMemory,
) -> Entry:
    """Plan the boot and put all of it into guest memory; where it starts."""
    kernel, initrd = _host_file(boot.kernel), boot.initrd
    regions = layout.memory_regions(config.mem_size_mib)
    board = BoardPlan(config.vcpu_count, regions, slots)
    size = None if initrd is None else _host_file(initrd).size
    planned = plan(board, kernel, size, line)
    load_segments(memory, kernel, planned.segments)
    if initrd is not None and planned.initrd is not None:
        load_segments(memory, _host_file(initrd), (planned.initrd,))
    for gpa, data in planned.writes:
        memory.write(gpa, data)
    return planned.entry


def _vcpus(kvm: Kvm, config: MachineConfig, entry: Entry) -> Sequence[VcpuState]:
    supported = unpack_cpuid(kvm.supported_cpuid())
    count, smt = config.vcpu_count, config.smt
    topologies = (Topology(index, count, smt) for index in range(count))
    return [boot_vcpu(topology, supported, entry) for topology in topologies]


def _disk(drive: Drive, log: Callable[[str], None], undo: ExitStack) -> Disk:
    """A block device over a duplicate of the drive's file."""
    config, file = drive.config, backing_file(drive)
    undo.callback(file.close)
    if (warning := size_warning(file.backing.size)) is not None:
        log(warning)
    state = BlockState(
        drive_id=config.drive_id,
        path_on_host=file.path,
        is_read_only=bool(config.is_read_only),
        is_root_device=config.is_root_device,
        partuuid=config.partuuid,
        cache_type=config.cache_type.value,
        io_engine="Sync" if config.io_engine is None else config.io_engine.value,
    )
    device = BlockDevice.restore(state, file.backing)
    return Disk(device, file, log)


def backing_file(drive: Drive) -> BackingFile:
    """A duplicate of the drive's file, with what a device has to know of it."""
    file = _host_file(drive.file).duplicate()
    fd = file.fd
    backing = Backing(fd, file.size, device_id(fd), knows_nowait(fd))
    return BackingFile(file.path, fd, backing)


def _host_file(file: object) -> HostFile:
    if not isinstance(file, HostFile):
        raise TypeError("resources hold files that HostFile.open did not open")
    return file
