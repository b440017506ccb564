"""The API's objects as tables: field names, types and defaults in wire order.

Names of structs are those that fault texts show. A ``default`` means that the
field may be absent also from an array, and that null is refused unless the shape
is an Option.
"""

from __future__ import annotations

from vmmd import config as c
from vmmd import snapshot_params as p
from vmmd import templates as t

from . import bodies as b
from . import syntaxes
from .shapes import Any, Bool, Enum, Field, Int, Option, Seq, Struct, Text, Untagged

BOOL = Bool()
U16 = Int("u16", 16)
U32 = Int("u32", 32)
U64 = Int("u64", 64)
U8 = Int("u8", 8)
USIZE = Int("usize", 64)
STRING = Text()
PATH = Text("path string")
JSON = Any()

TOKEN_BUCKET = Struct(
    "TokenBucketConfig",
    c.TokenBucketConfig,
    (
        Field("size", U64),
        Field("one_time_burst", Option(U64)),
        Field("refill_time", U64),
    ),
    strict=False,
)
RATE_LIMITER = Struct(
    "RateLimiterConfig",
    c.RateLimiterConfig,
    (
        Field("bandwidth", Option(TOKEN_BUCKET)),
        Field("ops", Option(TOKEN_BUCKET)),
    ),
)

_DEFAULT = c.MachineConfig()
MACHINE_CONFIG = Struct(
    "MachineConfig",
    c.MachineConfig,
    (
        Field("vcpu_count", U8),
        Field("mem_size_mib", USIZE),
        Field("smt", BOOL, _DEFAULT.smt),
        Field("cpu_template", Option(Enum(c.CpuTemplateName)), None),
        Field("track_dirty_pages", BOOL, _DEFAULT.track_dirty_pages),
        Field("huge_pages", Enum(c.HugePages), _DEFAULT.huge_pages),
    ),
)
MACHINE_CONFIG_UPDATE = Struct(
    "MachineConfigUpdate",
    c.MachineConfigUpdate,
    (
        Field("vcpu_count", Option(U8), None),
        Field("mem_size_mib", Option(USIZE), None),
        Field("smt", Option(BOOL), None),
        Field("cpu_template", Option(Enum(c.CpuTemplateName)), None),
        Field("track_dirty_pages", Option(BOOL), None),
        Field("huge_pages", Option(Enum(c.HugePages)), None),
    ),
)
BOOT_SOURCE = Struct(
    "BootSourceConfig",
    c.BootSourceConfig,
    (
        Field("kernel_image_path", STRING),
        Field("initrd_path", Option(STRING)),
        Field("boot_args", Option(STRING)),
    ),
)
DRIVE = Struct(
    "BlockDeviceConfig",
    c.DriveConfig,
    (
        Field("drive_id", STRING),
        Field("partuuid", Option(STRING)),
        Field("is_root_device", BOOL),
        Field("cache_type", Enum(c.CacheType), c.CacheType.UNSAFE),
        Field("is_read_only", Option(BOOL)),
        Field("path_on_host", Option(STRING)),
        Field("rate_limiter", Option(RATE_LIMITER)),
        Field("io_engine", Option(Enum(c.IoEngine))),
        Field("socket", Option(STRING)),
    ),
)
DRIVE_UPDATE = Struct(
    "BlockDeviceUpdateConfig",
    c.DriveUpdate,
    (
        Field("drive_id", STRING),
        Field("path_on_host", Option(STRING)),
        Field("rate_limiter", Option(RATE_LIMITER)),
    ),
)
NETWORK_INTERFACE = Struct(
    "NetworkInterfaceConfig",
    c.NetworkInterfaceConfig,
    (
        Field("iface_id", STRING),
        Field("host_dev_name", STRING),
        Field("guest_mac", Option(Text(convert=syntaxes.mac_address))),
        Field("mtu", Option(U16)),
        Field("rx_rate_limiter", Option(RATE_LIMITER)),
        Field("tx_rate_limiter", Option(RATE_LIMITER)),
    ),
)
NETWORK_INTERFACE_UPDATE = Struct(
    "NetworkInterfaceUpdateConfig",
    c.NetworkInterfaceUpdate,
    (
        Field("iface_id", STRING),
        Field("rx_rate_limiter", Option(RATE_LIMITER)),
        Field("tx_rate_limiter", Option(RATE_LIMITER)),
    ),
)
VSOCK = Struct(
    "VsockDeviceConfig",
    c.VsockConfig,
    (
        Field("vsock_id", Option(STRING), None),
        Field("guest_cid", U32),
        Field("uds_path", STRING),
    ),
)
BALLOON = Struct(
    "BalloonDeviceConfig",
    c.BalloonConfig,
    (
        Field("amount_mib", U32),
        Field("deflate_on_oom", BOOL),
        Field("stats_polling_interval_s", U16, 0),
        Field("free_page_hinting", BOOL, False),
        Field("free_page_reporting", BOOL, False),
    ),
)
BALLOON_UPDATE = Struct(
    "BalloonUpdateConfig", c.BalloonUpdate, (Field("amount_mib", U32),)
)
BALLOON_STATS_UPDATE = Struct(
    "BalloonUpdateStatsConfig",
    c.BalloonStatsUpdate,
    (Field("stats_polling_interval_s", U16),),
)
HINTING_START = Struct(
    "StartHintingCmd",
    c.HintingStart,
    (Field("acknowledge_on_stop", BOOL, True),),
    strict=False,
)
ENTROPY = Struct(
    "EntropyDeviceConfig",
    c.EntropyConfig,
    (Field("rate_limiter", Option(RATE_LIMITER)),),
)
PMEM = Struct(
    "PmemConfig",
    c.PmemConfig,
    (
        Field("id", STRING),
        Field("path_on_host", STRING),
        Field("root_device", BOOL, False),
        Field("read_only", BOOL, False),
        Field("rate_limiter", Option(RATE_LIMITER)),
    ),
)
PMEM_UPDATE = Struct(
    "PmemDeviceUpdateConfig",
    c.PmemUpdate,
    (Field("id", STRING), Field("rate_limiter", Option(RATE_LIMITER))),
)
MEMORY_HOTPLUG = Struct(
    "MemoryHotplugConfig",
    c.MemoryHotplugConfig,
    (
        Field("total_size_mib", USIZE),
        Field("block_size_mib", USIZE, c.DEFAULT_HOTPLUG_BLOCK_MIB),
        Field("slot_size_mib", USIZE, c.DEFAULT_HOTPLUG_SLOT_MIB),
    ),
)
MEMORY_HOTPLUG_UPDATE = Struct(
    "MemoryHotplugSizeUpdate",
    c.MemoryHotplugUpdate,
    (Field("requested_size_mib", USIZE),),
)
SERIAL = Struct(
    "SerialConfig",
    c.SerialConfig,
    (
        Field("serial_out_path", Option(PATH)),
        Field("rate_limiter", Option(TOKEN_BUCKET)),
    ),
)
LOGGER = Struct(
    "LoggerConfig",
    c.LoggerConfig,
    (
        Field("log_path", Option(PATH)),
        Field("level", Option(Text(convert=syntaxes.log_level))),
        Field("show_level", Option(BOOL)),
        Field("show_log_origin", Option(BOOL)),
        Field("module", Option(STRING)),
    ),
)
METRICS = Struct(
    "MetricsConfig", c.MetricsConfig, (Field("metrics_path", PATH),), strict=False
)
MMDS_CONFIG = Struct(
    "MmdsConfig",
    c.MmdsConfig,
    (
        Field("version", Enum(c.MmdsVersion), c.MmdsVersion.V1),
        Field("network_interfaces", Seq(STRING)),
        Field(
            "ipv4_address",
            Option(Text("IPv4 address", syntaxes.ipv4_address, inside=True)),
        ),
        Field("imds_compat", BOOL, False),
    ),
)
SNAPSHOT_CREATE = Struct(
    "CreateSnapshotParams",
    p.SnapshotCreateParams,
    (
        Field("snapshot_type", Enum(p.SnapshotType), p.SnapshotType.FULL),
        Field("snapshot_path", PATH),
        Field("mem_file_path", PATH),
        # Taken as it was in 1.5, though texts name the fields of the newest.
        Field(
            "version",
            Option(Text("semver version", syntaxes.semver, inside=True)),
            listed=False,
        ),
    ),
)
MEM_BACKEND = Struct(
    "MemBackendConfig",
    p.MemBackendConfig,
    (Field("backend_path", PATH), Field("backend_type", Enum(p.MemBackendType))),
)
NETWORK_OVERRIDE = Struct(
    "NetworkOverride",
    p.NetworkOverride,
    (Field("iface_id", STRING), Field("host_dev_name", STRING)),
    strict=False,
)
VSOCK_OVERRIDE = Struct(
    "VsockOverride", p.VsockOverride, (Field("uds_path", STRING),), strict=False
)
SNAPSHOT_LOAD = Struct(
    "LoadSnapshotConfig",
    b.SnapshotLoadConfig,
    (
        Field("snapshot_path", PATH),
        Field("mem_file_path", Option(PATH)),
        Field("mem_backend", Option(MEM_BACKEND)),
        Field("enable_diff_snapshots", BOOL, False),
        Field("track_dirty_pages", BOOL, False),
        Field("resume_vm", BOOL, False),
        Field("network_overrides", Seq(NETWORK_OVERRIDE), ()),
        Field("vsock_override", Option(VSOCK_OVERRIDE)),
        Field("clock_realtime", BOOL, False),
    ),
)
DRIVE_OVERRIDE = Struct(
    "DriveOverride",
    p.DriveOverride,
    (Field("drive_id", STRING), Field("path_on_host", STRING)),
)
# On a path of our own, for Firecracker's object is not ours to extend.
VMMD_SNAPSHOT_LOAD = Struct(
    "LoadSnapshotConfig",
    b.VmmdSnapshotLoadConfig,
    (*SNAPSHOT_LOAD.fields, Field("drive_overrides", Seq(DRIVE_OVERRIDE), ())),
)
VM_UPDATE = Struct("Vm", b.VmUpdate, (Field("state", Enum(c.VmStateChange)),))
ACTION_BODY = Struct(
    "ActionBody", b.ActionBody, (Field("action_type", Enum(c.ActionType)),)
)

CPUID_REGISTER_MODIFIER = Struct(
    "CpuidRegisterModifier",
    t.CpuidRegisterModifier,
    (
        Field("register", Text(convert=syntaxes.cpuid_register)),
        Field("bitmap", Text(convert=syntaxes.bitmap32)),
    ),
    strict=False,
)
CPUID_LEAF_MODIFIER = Struct(
    "CpuidLeafModifier",
    t.CpuidLeafModifier,
    (
        Field("leaf", Text(convert=syntaxes.prefixed_u32)),
        Field("subleaf", Text(convert=syntaxes.prefixed_u32)),
        Field("flags", U32),
        Field("modifiers", Seq(CPUID_REGISTER_MODIFIER)),
    ),
    strict=False,
)
MSR_MODIFIER = Struct(
    "RegisterModifier",
    t.MsrModifier,
    (
        Field("addr", Text(convert=syntaxes.prefixed_u32)),
        Field("bitmap", Text(convert=syntaxes.bitmap64)),
    ),
    strict=False,
)
CPU_TEMPLATE = Struct(
    "CustomCpuTemplate",
    t.CustomCpuTemplate,
    (
        Field("kvm_capabilities", Seq(Text(convert=syntaxes.kvm_capability)), ()),
        Field("cpuid_modifiers", Seq(CPUID_LEAF_MODIFIER), ()),
        Field("msr_modifiers", Seq(MSR_MODIFIER), ()),
    ),
)

# The whole of a config file. Its fields are the only ones with dashes.
VMM_CONFIG = Struct(
    "VmmConfig",
    c.VmmConfig,
    (
        Field("balloon", Option(BALLOON)),
        Field("drives", Seq(DRIVE)),
        Field("boot-source", BOOT_SOURCE),
        Field(
            "cpu-config",
            Option(Untagged("CustomCpuTemplateOrPath", (STRING, CPU_TEMPLATE))),
        ),
        Field("logger", Option(LOGGER)),
        Field("machine-config", Option(MACHINE_CONFIG)),
        Field("metrics", Option(METRICS)),
        Field("mmds-config", Option(MMDS_CONFIG)),
        Field("network-interfaces", Seq(NETWORK_INTERFACE), ()),
        Field("vsock", Option(VSOCK)),
        Field("entropy", Option(ENTROPY)),
        Field("pmem", Seq(PMEM), ()),
        Field("memory-hotplug", Option(MEMORY_HOTPLUG)),
    ),
    strict=False,
)
