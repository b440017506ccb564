"""The file of ``--config-file``: what it says, and the order in which it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from vmmd import actions as a
from vmmd.resources.fault import ResourceFault, RustError

from . import objects
from .serde import SerdeFault, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd import config as c
    from vmmd.templates import CustomCpuTemplate

T = TypeVar("T")


def parse_config(text: bytes) -> c.VmmConfig:
    """The configuration in a file. Raises ResourceFault."""
    try:
        return cast("c.VmmConfig", load(objects.VMM_CONFIG, text))
    except SerdeFault as fault:
        raise _json_fault(fault) from None


def parse_template(text: bytes) -> CustomCpuTemplate:
    """The CPU template in a file that ``cpu-config`` names. Raises ResourceFault."""
    try:
        return cast("CustomCpuTemplate", load(objects.CPU_TEMPLATE, text))
    except SerdeFault as fault:
        raise _json_fault(fault) from None


def _json_fault(fault: SerdeFault) -> ResourceFault:
    return ResourceFault("json", RustError(str(fault), fault.debug))


def steps(
    config: c.VmmConfig, metadata: a.PutMmds | None = None
) -> tuple[a.Action, ...]:
    """The actions that a configuration is, in the order in which they are done.

    A ``cpu-config`` that is a path is the caller's to read and is not among them:
    it comes before the boot source. ``metadata``: what ``--metadata`` asks for.
    """
    template = config.cpu_config
    inline = None if isinstance(template, str) else template
    return (
        *_one(a.PutLogger, config.logger),
        *_one(a.PutMetrics, config.metrics),
        *_one(a.PutMachineConfig, config.machine_config),
        *_one(a.PutCpuConfig, inline),
        a.PutBootSource(config.boot_source),
        *(a.PutDrive(drive) for drive in config.drives),
        *(a.PutNetworkInterface(net) for net in config.network_interfaces),
        *_one(a.PutVsock, config.vsock),
        *_one(a.PutBalloon, config.balloon),
        *_one(_same, metadata),
        *_one(a.PutMmdsConfig, config.mmds_config),
        *_one(a.PutEntropy, config.entropy),
        *(a.PutPmem(pmem) for pmem in config.pmem_devices),
        *_one(a.PutMemoryHotplug, config.memory_hotplug),
    )


def _same(action: a.Action) -> a.Action:
    return action


def _one(action: Callable[[T], a.Action], value: T | None) -> tuple[a.Action, ...]:
    return () if value is None else (action(value),)
