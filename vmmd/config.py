"""The API's objects: strict, frozen, one class per object, fields in wire order.

Names, types and order are Firecracker's (1.16); units stand in suffixes. What is
legal when, :mod:`vmmd.resources` says. ``None`` is an absent field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from .frozen import dataclass

if TYPE_CHECKING:
    from .templates import CustomCpuTemplate

DEFAULT_MEM_SIZE_MIB = 128
DEFAULT_HOTPLUG_BLOCK_MIB = 2
DEFAULT_HOTPLUG_SLOT_MIB = 128


class CpuTemplateName(StrEnum):
    """The static CPU templates, in the order in which error texts list them."""

    C3 = "C3"
    T2 = "T2"
    T2S = "T2S"
    NONE = "None"
    T2CL = "T2CL"
    T2A = "T2A"


class HugePages(StrEnum):
    """What backs guest memory."""

    NONE = "None"
    HUGETLBFS_2M = "2M"


class CacheType(StrEnum):
    """Whether a drive offers flush (Writeback) or not."""

    UNSAFE = "Unsafe"
    WRITEBACK = "Writeback"


class IoEngine(StrEnum):
    """How a drive does its I/O; both run on the same data path here."""

    ASYNC = "Async"
    SYNC = "Sync"


class MmdsVersion(StrEnum):
    """Version of the metadata service that guests speak to."""

    V1 = "V1"
    V2 = "V2"


class VmStateChange(StrEnum):
    """What ``PATCH /vm`` asks for."""

    PAUSED = "Paused"
    RESUMED = "Resumed"


class ActionType(StrEnum):
    """What ``PUT /actions`` asks for."""

    FLUSH_METRICS = "FlushMetrics"
    INSTANCE_START = "InstanceStart"
    SEND_CTRL_ALT_DEL = "SendCtrlAltDel"


class LogLevel(StrEnum):
    """The least level that is logged."""

    OFF = "Off"
    TRACE = "Trace"
    DEBUG = "Debug"
    INFO = "Info"
    WARN = "Warn"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class TokenBucketConfig:
    """One bucket: ``size`` tokens refilled over ``refill_time`` ms."""

    size: int
    one_time_burst: int | None
    refill_time: int

    @property
    def limits(self) -> bool:
        """Whether there is a limit: not with a size or time of 0, nor where the
        time in ns is beyond a u64."""
        time_ns = self.refill_time * 1_000_000
        return self.size > 0 and 0 < time_ns < 1 << 64


@dataclass(frozen=True, slots=True)
class RateLimiterConfig:
    """Buckets of bytes and of operations; an absent one does not limit."""

    bandwidth: TokenBucketConfig | None
    ops: TokenBucketConfig | None


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """``/machine-config``. A custom template stands in ``cpu_template`` too."""

    vcpu_count: int = 1
    mem_size_mib: int = DEFAULT_MEM_SIZE_MIB
    smt: bool = False
    cpu_template: CpuTemplateName | CustomCpuTemplate | None = None
    track_dirty_pages: bool = False
    huge_pages: HugePages = HugePages.NONE


@dataclass(frozen=True, slots=True)
class MachineConfigUpdate:
    """``PATCH /machine-config``: None leaves a field as it is."""

    vcpu_count: int | None = None
    mem_size_mib: int | None = None
    smt: bool | None = None
    cpu_template: CpuTemplateName | None = None
    track_dirty_pages: bool | None = None
    huge_pages: HugePages | None = None


@dataclass(frozen=True, slots=True)
class BootSourceConfig:
    """``PUT /boot-source``: paths on the host and the kernel's command line."""

    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str | None = None


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """``PUT /drives/{id}``."""

    drive_id: str
    partuuid: str | None
    is_root_device: bool
    cache_type: CacheType = CacheType.UNSAFE
    is_read_only: bool | None = None
    path_on_host: str | None = None
    rate_limiter: RateLimiterConfig | None = None
    io_engine: IoEngine | None = None
    socket: str | None = None


@dataclass(frozen=True, slots=True)
class DriveUpdate:
    """``PATCH /drives/{id}``: None leaves a property as it is."""

    drive_id: str
    path_on_host: str | None = None
    rate_limiter: RateLimiterConfig | None = None


@dataclass(frozen=True, slots=True)
class NetworkInterfaceConfig:
    """``PUT /network-interfaces/{id}``. ``guest_mac`` is in lower case."""

    iface_id: str
    host_dev_name: str
    guest_mac: str | None = None
    mtu: int | None = None
    rx_rate_limiter: RateLimiterConfig | None = None
    tx_rate_limiter: RateLimiterConfig | None = None


@dataclass(frozen=True, slots=True)
class NetworkInterfaceUpdate:
    """``PATCH /network-interfaces/{id}``."""

    iface_id: str
    rx_rate_limiter: RateLimiterConfig | None = None
    tx_rate_limiter: RateLimiterConfig | None = None


@dataclass(frozen=True, slots=True)
class VsockConfig:
    """``PUT /vsock``; ``vsock_id`` is deprecated and has no effect."""

    vsock_id: str | None
    guest_cid: int
    uds_path: str


@dataclass(frozen=True, slots=True)
class BalloonConfig:
    """``PUT /balloon``."""

    amount_mib: int
    deflate_on_oom: bool
    stats_polling_interval_s: int = 0
    free_page_hinting: bool = False
    free_page_reporting: bool = False


@dataclass(frozen=True, slots=True)
class BalloonUpdate:
    """``PATCH /balloon``."""

    amount_mib: int


@dataclass(frozen=True, slots=True)
class BalloonStatsUpdate:
    """``PATCH /balloon/statistics``."""

    stats_polling_interval_s: int


@dataclass(frozen=True, slots=True)
class HintingStart:
    """``PATCH /balloon/hinting/start``."""

    acknowledge_on_stop: bool = True


@dataclass(frozen=True, slots=True)
class EntropyConfig:
    """``PUT /entropy``."""

    rate_limiter: RateLimiterConfig | None = None


@dataclass(frozen=True, slots=True)
class PmemConfig:
    """``PUT /pmem/{id}``."""

    id: str
    path_on_host: str
    root_device: bool = False
    read_only: bool = False
    rate_limiter: RateLimiterConfig | None = None


@dataclass(frozen=True, slots=True)
class PmemUpdate:
    """``PATCH /pmem/{id}``."""

    id: str
    rate_limiter: RateLimiterConfig | None = None


@dataclass(frozen=True, slots=True)
class MemoryHotplugConfig:
    """``PUT /hotplug/memory``."""

    total_size_mib: int
    block_size_mib: int = DEFAULT_HOTPLUG_BLOCK_MIB
    slot_size_mib: int = DEFAULT_HOTPLUG_SLOT_MIB


@dataclass(frozen=True, slots=True)
class MemoryHotplugUpdate:
    """``PATCH /hotplug/memory``."""

    requested_size_mib: int


@dataclass(frozen=True, slots=True)
class SerialConfig:
    """``PUT /serial``: where the console goes, and how fast."""

    serial_out_path: str | None = None
    rate_limiter: TokenBucketConfig | None = None


@dataclass(frozen=True, slots=True)
class LoggerConfig:
    """``PUT /logger``: None keeps a setting, but for ``level``, which is Info."""

    log_path: str | None = None
    level: LogLevel | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """``PUT /metrics``."""

    metrics_path: str


@dataclass(frozen=True, slots=True)
class MmdsConfig:
    """``PUT /mmds/config``. ``ipv4_address`` is in dotted decimals."""

    version: MmdsVersion
    network_interfaces: tuple[str, ...]
    ipv4_address: str | None
    imds_compat: bool


@dataclass(frozen=True, slots=True)
class VmmConfig:
    """A whole configuration, as ``--config-file`` gives it.

    ``cpu_config`` is a path to a template or the template itself.
    """

    balloon: BalloonConfig | None
    drives: tuple[DriveConfig, ...]
    boot_source: BootSourceConfig
    cpu_config: str | CustomCpuTemplate | None
    logger: LoggerConfig | None
    machine_config: MachineConfig | None
    metrics: MetricsConfig | None
    mmds_config: MmdsConfig | None
    network_interfaces: tuple[NetworkInterfaceConfig, ...]
    vsock: VsockConfig | None
    entropy: EntropyConfig | None
    pmem_devices: tuple[PmemConfig, ...]
    memory_hotplug: MemoryHotplugConfig | None


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """``GET /``."""

    id: str
    state: str
    vmm_version: str
    app_name: str
