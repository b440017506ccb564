"""Answers to bodies: the status, and JSON as serde_json writes it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from vmmd import config as c
from vmmd.actions import Answer, JsonValue
from vmmd.templates import CustomCpuTemplate

from .serde import dump

if TYPE_CHECKING:
    from vmmd.resources.store import VmResources

APP_NAME = "Firecracker"
BAD_REQUEST = 400

# Fields that are left out, not null, where there is nothing to say.
_LEFT_OUT = {(c.MachineConfig, "cpu_template"), (c.VsockConfig, "vsock_id")}


def body(answer: Answer) -> bytes:
    """The body of an answer; empty with a 204."""
    return b"" if answer.status == 204 else dump(answer.body).encode()


def fault(message: str) -> bytes:
    """The body of a refusal."""
    return dump({"fault_message": message}).encode()


def plain(value: object) -> JsonValue:
    """A config object as JSON: its fields in order, None as null."""
    match value:
        case None | bool() | int() | float():
            return value
        case StrEnum():
            return value.value
        case str():
            return value
        case tuple() | list():
            return [plain(item) for item in value]
        case _ if is_dataclass(value):
            return _object(value)
        case _:
            raise TypeError(f"no JSON for a {type(value).__name__}")


def _object(value: object) -> dict[str, JsonValue]:
    shown: dict[str, JsonValue] = {}
    for field in fields(value):  # type: ignore[arg-type]  # the caller has looked
        item = getattr(value, field.name)
        if item is not None or (type(value), field.name) not in _LEFT_OUT:
            shown[field.name] = plain(item)
    return shown


def instance_info(info: c.InstanceInfo) -> Answer:
    """``GET /``."""
    return Answer(200, plain(info))


def version(text: str) -> Answer:
    """``GET /version``."""
    return Answer(200, {"firecracker_version": text})


def machine_config(machine: c.MachineConfig) -> Answer:
    """``GET /machine-config``; a custom template does not show."""
    return Answer(200, _machine(machine))


def _machine(machine: c.MachineConfig) -> JsonValue:
    shown = _object(machine)
    if isinstance(machine.cpu_template, CustomCpuTemplate):
        del shown["cpu_template"]
    return shown


def vm_config(resources: VmResources) -> Answer:
    """``GET /vm/config``: every key, null or empty where nothing is configured."""
    boot = resources.boot
    source = c.BootSourceConfig("") if boot is None else boot.config
    return Answer(
        200,
        {
            "balloon": plain(resources.balloon),
            "drives": [plain(drive.config) for drive in resources.drives],
            "boot-source": plain(source),
            "cpu-config": None,
            "logger": None,
            "machine-config": _machine(resources.machine),
            "metrics": None,
            "mmds-config": plain(resources.mmds),
            "network-interfaces": [plain(net.config) for net in resources.nets],
            "vsock": None,
            "entropy": plain(resources.entropy),
            "pmem": plain(resources.pmem),
            "memory-hotplug": plain(resources.memory_hotplug),
        },
    )


def sorted_keys(value: JsonValue) -> JsonValue:
    """A JSON value with the keys of each object in order, as ``GET /mmds`` has."""
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [sorted_keys(item) for item in value]
    return value
