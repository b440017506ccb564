"""What may be asked of a machine, and what is answered.

A request of the API, a step of a config file and a call of the library all come
down to one of these values; ``perform(action)`` is the only way to change a
machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from .frozen import dataclass

if TYPE_CHECKING:
    from . import config, snapshot_params
    from .templates import CustomCpuTemplate

JsonValue: TypeAlias = (
    bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an action came to: 204 without a body, or 200 and a JSON value.

    A refusal is not an Answer but a ConfigError whose text is the fault message.
    """

    status: int
    body: JsonValue = None


NO_CONTENT = Answer(204)


class DeviceKind(StrEnum):
    """Devices that can be unplugged, by their place in a path."""

    DRIVE = "drives"
    PMEM = "pmem"
    NET = "network-interfaces"


@dataclass(frozen=True, slots=True)
class GetInstanceInfo:
    """``GET /``."""


@dataclass(frozen=True, slots=True)
class GetVersion:
    """``GET /version``."""


@dataclass(frozen=True, slots=True)
class GetState:
    """``GET /vmmd/state``: registers, last exits, rings of a living VM."""


@dataclass(frozen=True, slots=True)
class GetSnapshotTargets:
    """``GET /vmmd/snapshot/targets``: releases that a snapshot could be for now."""


@dataclass(frozen=True, slots=True)
class GetSnapshotProgress:
    """``GET /vmmd/snapshot/progress``: how far the create is that is under way."""


@dataclass(frozen=True, slots=True)
class GetMachineConfig:
    """``GET /machine-config``."""


@dataclass(frozen=True, slots=True)
class GetVmConfig:
    """``GET /vm/config``."""


@dataclass(frozen=True, slots=True)
class GetBalloon:
    """``GET /balloon``."""


@dataclass(frozen=True, slots=True)
class GetBalloonStatistics:
    """``GET /balloon/statistics``."""


@dataclass(frozen=True, slots=True)
class GetHintingStatus:
    """``GET /balloon/hinting/status``."""


@dataclass(frozen=True, slots=True)
class GetMmds:
    """``GET /mmds``."""


@dataclass(frozen=True, slots=True)
class GetMemoryHotplug:
    """``GET /hotplug/memory``."""


@dataclass(frozen=True, slots=True)
class InstanceStart:
    """``PUT /actions`` InstanceStart."""


@dataclass(frozen=True, slots=True)
class FlushMetrics:
    """``PUT /actions`` FlushMetrics."""


@dataclass(frozen=True, slots=True)
class SendCtrlAltDel:
    """``PUT /actions`` SendCtrlAltDel."""


@dataclass(frozen=True, slots=True)
class PatchVm:
    """``PATCH /vm``: pause or resume."""

    state: config.VmStateChange


@dataclass(frozen=True, slots=True)
class PutMachineConfig:
    """``PUT /machine-config``."""

    config: config.MachineConfig


@dataclass(frozen=True, slots=True)
class PatchMachineConfig:
    """``PATCH /machine-config``."""

    update: config.MachineConfigUpdate


@dataclass(frozen=True, slots=True)
class PutBootSource:
    """``PUT /boot-source``."""

    config: config.BootSourceConfig


@dataclass(frozen=True, slots=True)
class PutDrive:
    """``PUT /drives/{id}``."""

    config: config.DriveConfig


@dataclass(frozen=True, slots=True)
class PatchDrive:
    """``PATCH /drives/{id}``."""

    update: config.DriveUpdate


@dataclass(frozen=True, slots=True)
class PutNetworkInterface:
    """``PUT /network-interfaces/{id}``."""

    config: config.NetworkInterfaceConfig


@dataclass(frozen=True, slots=True)
class PatchNetworkInterface:
    """``PATCH /network-interfaces/{id}``."""

    update: config.NetworkInterfaceUpdate


@dataclass(frozen=True, slots=True)
class PutPmem:
    """``PUT /pmem/{id}``."""

    config: config.PmemConfig


@dataclass(frozen=True, slots=True)
class PatchPmem:
    """``PATCH /pmem/{id}``."""

    update: config.PmemUpdate


@dataclass(frozen=True, slots=True)
class DeleteDevice:
    """``DELETE /drives|pmem|network-interfaces/{id}``."""

    kind: DeviceKind
    id: str


@dataclass(frozen=True, slots=True)
class PutVsock:
    """``PUT /vsock``."""

    config: config.VsockConfig


@dataclass(frozen=True, slots=True)
class PutBalloon:
    """``PUT /balloon``."""

    config: config.BalloonConfig


@dataclass(frozen=True, slots=True)
class PatchBalloon:
    """``PATCH /balloon``."""

    update: config.BalloonUpdate


@dataclass(frozen=True, slots=True)
class PatchBalloonStatistics:
    """``PATCH /balloon/statistics``."""

    update: config.BalloonStatsUpdate


@dataclass(frozen=True, slots=True)
class StartHinting:
    """``PATCH /balloon/hinting/start``."""

    start: config.HintingStart


@dataclass(frozen=True, slots=True)
class StopHinting:
    """``PATCH /balloon/hinting/stop``."""


@dataclass(frozen=True, slots=True)
class PutEntropy:
    """``PUT /entropy``."""

    config: config.EntropyConfig


@dataclass(frozen=True, slots=True)
class PutCpuConfig:
    """``PUT /cpu-config``."""

    template: CustomCpuTemplate


@dataclass(frozen=True, slots=True)
class PutSerial:
    """``PUT /serial``."""

    config: config.SerialConfig


@dataclass(frozen=True, slots=True)
class PutMemoryHotplug:
    """``PUT /hotplug/memory``."""

    config: config.MemoryHotplugConfig


@dataclass(frozen=True, slots=True)
class PatchMemoryHotplug:
    """``PATCH /hotplug/memory``."""

    update: config.MemoryHotplugUpdate


@dataclass(frozen=True, slots=True)
class PutLogger:
    """``PUT /logger``."""

    config: config.LoggerConfig


@dataclass(frozen=True, slots=True)
class PutMetrics:
    """``PUT /metrics``."""

    config: config.MetricsConfig


@dataclass(frozen=True, slots=True)
class PutMmds:
    """``PUT /mmds``: replaces the store."""

    value: JsonValue


@dataclass(frozen=True, slots=True)
class PatchMmds:
    """``PATCH /mmds``: merges into the store (RFC 7396)."""

    value: JsonValue


@dataclass(frozen=True, slots=True)
class PutMmdsConfig:
    """``PUT /mmds/config``."""

    config: config.MmdsConfig


@dataclass(frozen=True, slots=True)
class CreateSnapshot:
    """``PUT /snapshot/create``."""

    params: snapshot_params.SnapshotCreateParams


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """``PUT /snapshot/load``."""

    params: snapshot_params.SnapshotLoadParams


Action: TypeAlias = (
    GetInstanceInfo
    | GetVersion
    | GetState
    | GetSnapshotTargets
    | GetSnapshotProgress
    | GetMachineConfig
    | GetVmConfig
    | GetBalloon
    | GetBalloonStatistics
    | GetHintingStatus
    | GetMmds
    | GetMemoryHotplug
    | InstanceStart
    | FlushMetrics
    | SendCtrlAltDel
    | PatchVm
    | PutMachineConfig
    | PatchMachineConfig
    | PutBootSource
    | PutDrive
    | PatchDrive
    | PutNetworkInterface
    | PatchNetworkInterface
    | PutPmem
    | PatchPmem
    | DeleteDevice
    | PutVsock
    | PutBalloon
    | PatchBalloon
    | PatchBalloonStatistics
    | StartHinting
    | StopHinting
    | PutEntropy
    | PutCpuConfig
    | PutSerial
    | PutMemoryHotplug
    | PatchMemoryHotplug
    | PutLogger
    | PutMetrics
    | PutMmds
    | PatchMmds
    | PutMmdsConfig
    | CreateSnapshot
    | LoadSnapshot
)

READS: frozenset[type] = frozenset(
    {
        GetInstanceInfo,
        GetVersion,
        GetState,
        GetSnapshotTargets,
        GetSnapshotProgress,
        GetMachineConfig,
        GetVmConfig,
        GetBalloon,
        GetBalloonStatistics,
        GetHintingStatus,
        GetMmds,
        GetMemoryHotplug,
    }
)
