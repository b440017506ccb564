"""The whole configuration of a machine, and one step of configuring it.

``VmResources`` is a frozen value; a step gives a new one or raises and leaves
the old. Files are opened when they are named, through the caller's ``Opener``,
so that a wrong path is refused at once and a later rename changes nothing.
Order of checks and texts are Firecracker's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmmd import actions as a
from vmmd.config import (
    BalloonConfig,
    EntropyConfig,
    MachineConfig,
    MemoryHotplugConfig,
    MmdsConfig,
    PmemConfig,
    SerialConfig,
)
from vmmd.frozen import dataclass

from .boot import BootSource, open_boot_source
from .devices import (
    check_balloon,
    check_memory_hotplug,
    has_root_pmem,
    insert_pmem,
)
from .drives import Drive, has_root_drive, insert_drive
from .limiters import effective_limiter
from .machine import as_update, update_machine

if TYPE_CHECKING:
    from .fault import OpenedFile, Opener
    from .nets import Net

_MACHINE = MachineConfig()
_SERIAL = SerialConfig()


@dataclass(frozen=True, slots=True)
class VmResources:
    """A machine's configuration. ``drives``, then ``nets``, are in the order of
    their slots."""

    machine: MachineConfig = _MACHINE
    boot: BootSource | None = None
    drives: tuple[Drive, ...] = ()
    nets: tuple[Net, ...] = ()
    balloon: BalloonConfig | None = None
    entropy: EntropyConfig | None = None
    pmem: tuple[PmemConfig, ...] = ()
    memory_hotplug: MemoryHotplugConfig | None = None
    serial: SerialConfig = _SERIAL
    mmds: MmdsConfig | None = None

    def files(self) -> tuple[OpenedFile, ...]:
        """Every open file of the configuration."""
        boot = () if self.boot is None else (self.boot.kernel, self.boot.initrd)
        drives = tuple(drive.file for drive in self.drives)
        taps = tuple(net.tap for net in self.nets)
        return tuple(file for file in (*boot, *drives, *taps) if file is not None)


def apply(now: VmResources, action: a.Action, opener: Opener) -> VmResources:
    """The configuration after one step, or ResourceFault and nothing changed.

    Whoever holds the files closes those that the result no longer has: see
    :func:`dropped`. Raises TypeError for an action that configures nothing here.
    """
    match action:
        case a.PutMachineConfig(config):
            machine = update_machine(now.machine, as_update(config), now.balloon)
            return replace(now, machine=machine)
        case a.PatchMachineConfig(update):
            machine = update_machine(now.machine, update, now.balloon)
            return replace(now, machine=machine)
        case a.PutBootSource(boot):
            return replace(now, boot=open_boot_source(boot, opener))
        case a.PutDrive(drive):
            root_pmem = has_root_pmem(now.pmem)
            drives = insert_drive(now.drives, drive, root_pmem, opener)
            return replace(now, drives=drives)
        case _:
            return _apply_device(now, action)


def _apply_device(now: VmResources, action: a.Action) -> VmResources:
    match action:
        case a.PutBalloon(config):
            balloon = check_balloon(config, now.machine.mem_size_mib)
            return replace(now, balloon=balloon)
        case a.PutEntropy(entropy):
            limiter = effective_limiter(entropy.rate_limiter)
            return replace(now, entropy=EntropyConfig(limiter))
        case a.PutPmem(pmem):
            root_drive = has_root_drive(now.drives)
            return replace(now, pmem=insert_pmem(now.pmem, pmem, root_drive))
        case a.PutMemoryHotplug(hotplug):
            return replace(now, memory_hotplug=check_memory_hotplug(hotplug))
        case a.PutSerial(serial):
            return replace(now, serial=serial)
        case a.PutCpuConfig(template):
            return replace(now, machine=replace(now.machine, cpu_template=template))
        case _:
            raise TypeError(f"{type(action).__name__} configures nothing")


def dropped(before: VmResources, after: VmResources) -> tuple[OpenedFile, ...]:
    """The files of ``before`` that ``after`` does not hold any more."""
    kept = {id(file) for file in after.files()}
    return tuple(file for file in before.files() if id(file) not in kept)
