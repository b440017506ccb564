"""What a snapshot says of a machine besides the state of its parts.

It brings the configuration back, so that ``GET /machine-config`` and
``GET /vm/config`` answer after a load as they did before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.config import BootSourceConfig, CpuTemplateName, HugePages, MachineConfig
from vmmd.errors import SnapshotError
from vmmd.resources.boot import BootSource
from vmmd.state.record import (
    U8,
    Loss,
    downgrade,
    record,
    upgrade,
    with_fields,
    without,
)

if TYPE_CHECKING:
    from enum import StrEnum
    from typing import TypeVar

    from vmmd.resources.store import VmResources
    from vmmd.state.record import Fields, Notes

    E = TypeVar("E", bound=StrEnum)


@record("vm_info", 3)
class VmInfo:
    """Size, shape and boot source; names as the API has them.

    A custom CPU template is not named: what it did to the CPU is in the vCPUs.
    """

    vcpu_count: U8
    mem_size_mib: int
    smt: bool = False
    cpu_template: str | None = None
    huge_pages: str = HugePages.NONE.value
    kernel_image_path: str = ""
    initrd_path: str | None = None
    boot_args: str | None = None


def vm_info(resources: VmResources) -> VmInfo:
    """The record of a machine's configuration."""
    machine, boot = resources.machine, resources.boot
    source = BootSourceConfig("") if boot is None else boot.config
    template = machine.cpu_template
    return VmInfo(
        vcpu_count=machine.vcpu_count,
        mem_size_mib=machine.mem_size_mib,
        smt=machine.smt,
        cpu_template=template.value if isinstance(template, CpuTemplateName) else None,
        huge_pages=machine.huge_pages.value,
        kernel_image_path=source.kernel_image_path,
        initrd_path=source.initrd_path,
        boot_args=source.boot_args,
    )


def machine_config(info: VmInfo, *, track_dirty_pages: bool) -> MachineConfig:
    """The configuration that a record stands for; SnapshotError names a bad field."""
    template = info.cpu_template
    return MachineConfig(
        info.vcpu_count,
        info.mem_size_mib,
        info.smt,
        None if template is None else _named(CpuTemplateName, "cpu_template", template),
        track_dirty_pages,
        _named(HugePages, "huge_pages", info.huge_pages),
    )


def boot_source(info: VmInfo) -> BootSource:
    """What the machine was booted from, as it is shown; no file is open."""
    config = BootSourceConfig(info.kernel_image_path, info.initrd_path, info.boot_args)
    return BootSource(config, None, None)


def _named(kind: type[E], field: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise SnapshotError(f"vm_info: {field}: {value!r} is not known") from error


@downgrade(VmInfo, 3)
def _without_huge_pages(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    older = without(fields, "huge_pages")
    if fields["huge_pages"] == HugePages.NONE.value:
        return older, ()
    text = "Saving to older snapshot version, huge page information will not be saved."
    return older, (Loss(("huge_pages",), text),)


@upgrade(VmInfo, 2)
def _with_huge_pages(fields: Fields) -> tuple[Fields, Notes]:
    return with_fields(fields, {"huge_pages": HugePages.NONE.value}), ()


_BOOT_SOURCE = ("kernel_image_path", "initrd_path", "boot_args")


@downgrade(VmInfo, 2)
def _size_alone(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    losses = (
        _not_saved("SMT", "smt"),
        _not_saved("CPU template", "cpu_template"),
        _not_saved("boot source", *_BOOT_SOURCE),
    )
    return without(fields, "smt", "cpu_template", *_BOOT_SOURCE), losses


def _not_saved(what: str, *fields: str) -> Loss:
    text = f"Saving to older snapshot version, {what} information will not be saved."
    return Loss(fields, text)


@upgrade(VmInfo, 1)
def _with_more_than_size(fields: Fields) -> tuple[Fields, Notes]:
    new = {"smt": False, "cpu_template": None, "kernel_image_path": ""}
    nothing = {"initrd_path": None, "boot_args": None}
    return with_fields(fields, {**new, **nothing}), (
        "SMT field not found in snapshot.",
        "CPU template field not found in snapshot.",
        "Boot source information not found in snapshot.",
    )
