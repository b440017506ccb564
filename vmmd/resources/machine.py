"""The machine's size and shape: merging updates, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vmmd.config import (
    BalloonConfig,
    CpuTemplateName,
    HugePages,
    MachineConfig,
    MachineConfigUpdate,
)

from .fault import ResourceFault, RustError

if TYPE_CHECKING:
    from vmmd.templates import CustomCpuTemplate

MAX_VCPUS = 32

T = TypeVar("T")

_VCPUS = RustError(
    "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an"
    " even number if SMT is enabled.",
    "InvalidVcpuCount",
)
_MEMORY = RustError(
    "The memory size (MiB) is either 0, or not a multiple of the configured page size.",
    "InvalidMemorySize",
)
_BALLOON_SIZE = RustError(
    "The memory size (MiB) is smaller than the previously set balloon device target"
    " size.",
    "IncompatibleBalloonSize",
)


def as_update(config: MachineConfig) -> MachineConfigUpdate:
    """A PUT as the update that it is.

    Fields not given become the defaults, but a template that is not named stays.
    """
    template = config.cpu_template
    return MachineConfigUpdate(
        config.vcpu_count,
        config.mem_size_mib,
        config.smt,
        template if isinstance(template, CpuTemplateName) else None,
        config.track_dirty_pages,
        config.huge_pages,
    )


def update_machine(
    old: MachineConfig, update: MachineConfigUpdate, balloon: BalloonConfig | None
) -> MachineConfig:
    """The machine configuration after an update; all of it or ResourceFault."""
    new = MachineConfig(
        _given(update.vcpu_count, old.vcpu_count),
        _given(update.mem_size_mib, old.mem_size_mib),
        _given(update.smt, old.smt),
        _template(update.cpu_template, old.cpu_template),
        _given(update.track_dirty_pages, old.track_dirty_pages),
        _given(update.huge_pages, old.huge_pages),
    )
    odd = new.vcpu_count > 1 and new.vcpu_count % 2 == 1
    if not 1 <= new.vcpu_count <= MAX_VCPUS or (new.smt and odd):
        raise ResourceFault("machine", _VCPUS)
    step_mib = 2 if new.huge_pages is HugePages.HUGETLBFS_2M else 1
    if new.mem_size_mib == 0 or new.mem_size_mib % step_mib:
        raise ResourceFault("machine", _MEMORY)
    if balloon is not None and new.mem_size_mib < balloon.amount_mib:
        raise ResourceFault("machine", _BALLOON_SIZE)
    return new


def _given(value: T | None, old: T) -> T:
    return old if value is None else value


def _template(
    name: CpuTemplateName | None, old: CpuTemplateName | CustomCpuTemplate | None
) -> CpuTemplateName | CustomCpuTemplate | None:
    if name is None:
        return old
    return None if name is CpuTemplateName.NONE else name
