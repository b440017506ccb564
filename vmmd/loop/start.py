"""From a configuration to a board that is ready to run: InstanceStart.

Everything is checked and built before the first vCPU runs; what fails leaves
nothing behind. The texts are those that follow ``Start microvm error: ``.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, closing
from itertools import zip_longest
from typing import TYPE_CHECKING

from vmmd.boot import cmdline, layout
from vmmd.boot.image import BootError, unreadable_kernel
from vmmd.boot.load import load_kernel, unreadable_initrd
from vmmd.boot.plan import Board as BoardPlan
from vmmd.boot.plan import plan
from vmmd.chips.boottimer import boot_time_text
from vmmd.config import CpuTemplateName, HugePages
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.cpuid import unpack_cpuid
from vmmd.cpu.static_template import check_template
from vmmd.cpu.topology import Topology
from vmmd.errors import ConfigError, HostError, VmmdError
from vmmd.loop import spare
from vmmd.loop.assemble import Parts, assemble, device_names, host_file
from vmmd.loop.board import KvmState
from vmmd.loop.files import (
    load_segments,
    map_guest_memory,
    unmap_guest_memory,
)
from vmmd.loop.kvm import Kvm
from vmmd.rust import io_error, io_error_debug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vmmd.boot.image import Entry
    from vmmd.boot.layout import MmioSlot
    from vmmd.boot.plan import BootPlan
    from vmmd.config import DriveConfig, MachineConfig
    from vmmd.cpu.state import VcpuState
    from vmmd.loop.board import Board
    from vmmd.loop.logger import Logger
    from vmmd.memory import GuestMemory
    from vmmd.resources.boot import BootSource
    from vmmd.resources.store import VmResources

KVM_MEM_MAX_PAGES = (1 << 31) - 1
"""Of one memory slot (``KVM_MEM_MAX_NR_PAGES``)."""

_MAX_OFFSET = (1 << 63) - 1
"""A file's; Firecracker adds memory regions up as if they were in one."""

NO_KERNEL = "Cannot start microvm without kernel configuration."


def boot_time_log(logger: Logger) -> Callable[[], None]:
    """What logs the time since now when the guest says that it is up."""
    log = logger.channel("fc_vcpu 0", "vmm::devices::pseudo")
    wall_us, cpu_us = time.monotonic_ns() // 1000, time.process_time_ns() // 1000

    def up() -> None:
        wall = time.monotonic_ns() // 1000 - wall_us
        cpu = time.process_time_ns() // 1000 - cpu_us
        log.info(boot_time_text(wall, cpu))

    return up


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
    memory = guest_memory(resources.machine, resources.boot)
    with ExitStack() as undo:
        undo.callback(unmap_guest_memory, memory)
        slots = layout.virtio_slots(len(device_names(resources)))
        entry = _load(resources, slots, memory)
        with closing(spare.take()) as kvm:
            parts = Parts(memory, KvmState(_vcpus(kvm, resources.machine, entry)))
            board = assemble(
                kvm, resources, parts, log, boot_timer=boot_timer, stdio=stdio
            )
        undo.pop_all()
    return board


def _command_line(resources: VmResources, slots: Iterable[MmioSlot]) -> bytes:
    roots = (_root(drive.config) for drive in resources.drives)  # the first slots
    devices = [
        cmdline.CmdlineDevice(slot, root) for slot, root in zip_longest(slots, roots)
    ]
    boot_args = None if resources.boot is None else resources.boot.config.boot_args
    return cmdline.build(boot_args, devices).encode()


def _root(config: DriveConfig) -> cmdline.RootDrive | None:
    if not config.is_root_device:
        return None
    return cmdline.RootDrive(config.partuuid, bool(config.is_read_only))


def _load(
    resources: VmResources, slots: tuple[MmioSlot, ...], memory: GuestMemory
) -> Entry:
    """Plan the boot and put all of it into guest memory; where it starts."""
    boot = _boot(resources)
    planned = _plan(resources, boot, slots)
    try:
        load_segments(memory, host_file(boot.kernel), planned.segments)
    except OSError as error:
        raise unreadable_kernel(str(error.strerror)) from error
    if boot.initrd is not None and planned.initrd is not None:
        initrd = host_file(boot.initrd)
        try:
            load_segments(memory, initrd, (planned.initrd,))
        except OSError as error:
            raise unreadable_initrd(error) from error
    for gpa, data in planned.writes:
        memory.write(gpa, data)
    return planned.entry


def _boot(resources: VmResources) -> BootSource:
    if resources.boot is None:
        raise ConfigError(NO_KERNEL)
    return resources.boot


def _plan(
    resources: VmResources, boot: BootSource, slots: tuple[MmioSlot, ...]
) -> BootPlan:
    """The boot's plan. Kernel's faults come first, then initrd's, then the line's."""
    config, kernel = resources.machine, host_file(boot.kernel)
    regions = layout.memory_regions(config.mem_size_mib)
    board = BoardPlan(config.vcpu_count, regions, slots)
    try:
        size = None if boot.initrd is None else _readable_size(boot.initrd)
    except OSError as error:
        load_kernel(kernel, regions)
        raise unreadable_initrd(error) from error
    try:
        line = _command_line(resources, slots)
    except ConfigError:
        plan(board, kernel, size, b"\0")
        raise
    return plan(board, kernel, size, line)


def _readable_size(file: object) -> int:
    """Bytes in a file; OSError if it is one that cannot be read or has no size."""
    opened = host_file(file)
    opened.pread(1, 0)
    return opened.size


def guest_memory(config: MachineConfig, boot: BootSource) -> GuestMemory:
    """Memory for the guest, once the CPU template is looked at.

    ConfigError as Firecracker words it, with our own hint.
    """
    regions = layout.memory_regions(config.mem_size_mib)
    if sum(size for _, size in regions) >= _MAX_OFFSET:
        raise _beyond_offsets()
    try:
        huge = config.huge_pages is not HugePages.NONE
        memory = map_guest_memory(regions, huge_pages=huge)
    except HostError as error:
        raise _no_memory(error, config, boot) from error
    try:
        _check_template(config)
        if any(size >> 12 > KVM_MEM_MAX_PAGES for _, size in regions):
            raise _too_large_for_kvm()
    except VmmdError:
        unmap_guest_memory(memory)
        raise
    return memory


def _no_memory(error: HostError, config: MachineConfig, boot: BootSource) -> BootError:
    """The fault of a mapping that failed, as it shows itself in Firecracker.

    There it maps huge pages that the host does not have, and the kernel then
    cannot be read into them.
    """
    _check_template(config)
    cause = error.__cause__
    if config.huge_pages is not HugePages.NONE:
        regions = layout.memory_regions(config.mem_size_mib)
        load_kernel(host_file(boot.kernel), regions)
        return unreadable_kernel(str(error))
    fault = cause if isinstance(cause, OSError) else OSError(errno.ENOMEM, "")
    made = BootError(
        "Invalid Memory Configuration: Cannot create mmap region: " + io_error(fault),
        str(error),
    )
    made.debug = f"GuestMemory(MmapRegionError(Mmap({io_error_debug(fault)})))"
    return made


def _beyond_offsets() -> ConfigError:
    text = "Total sum of memory regions exceeds largest possible file offset"
    made = ConfigError(f"Invalid Memory Configuration: {text}")
    made.debug = "GuestMemory(OffsetTooLarge)"
    return made


def _too_large_for_kvm() -> ConfigError:
    fault = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    text = f"Cannot set the memory regions: {io_error(fault)}"
    made = ConfigError(f"Error with the KvmVm object: {text}")
    made.debug = f"KvmVm(SetUserMemoryRegion(Error({errno.EINVAL})))"
    return made


def _check_template(config: MachineConfig) -> None:
    if isinstance(config.cpu_template, CpuTemplateName):
        with closing(Kvm.open()) as kvm:
            check_template(config.cpu_template, unpack_cpuid(kvm.supported_cpuid()))


def _vcpus(kvm: Kvm, config: MachineConfig, entry: Entry) -> Sequence[VcpuState]:
    supported = unpack_cpuid(kvm.supported_cpuid())
    count, smt = config.vcpu_count, config.smt
    topologies = (Topology(index, count, smt) for index in range(count))
    return [boot_vcpu(topology, supported, entry) for topology in topologies]
