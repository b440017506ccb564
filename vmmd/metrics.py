"""The metrics: Firecracker's tree of counters, and what has changed in it.

Groups and keys are those of Firecracker 1.16.1, in its order, all of them: who
reads the lines may know no others and miss none. What is not built yet has done
nothing, so its counts are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Tree: TypeAlias = "dict[str, int | Tree]"

_AGGREGATE = ("min_us", "max_us", "sum_us")
# What stands for itself; all else counts from flush to flush.
_STORED = {
    *("utc_timestamp_ms", "api_server", "latencies_us", "min_us", "max_us"),
    *("sigbus", "sigsegv", "sigxfsz", "sigxcpu", "sighup", "sigill"),
}
_BALLOON = """activate_fails inflate_count stats_updates_count stats_update_fails
    deflate_count event_fails free_page_report_count free_page_report_freed
    free_page_report_fails free_page_hint_count free_page_hint_freed
    free_page_hint_fails"""
BLOCK = """activate_fails cfg_fails no_avail_buffer event_fails execute_fails
    invalid_reqs_count flush_count queue_event_count rate_limiter_event_count
    update_count update_fails read_bytes write_bytes read_count write_count read_agg
    write_agg rate_limiter_throttled_events io_engine_throttled_events
    remaining_reqs_count"""
NET = """activate_fails cfg_fails mac_address_updates no_rx_avail_buffer
    no_tx_avail_buffer event_fails rx_queue_event_count rx_event_rate_limiter_count
    rx_rate_limiter_throttled rx_tap_event_count rx_bytes_count rx_packets_count
    rx_fails rx_count tap_read_fails tap_write_fails tap_write_agg tx_bytes_count
    tx_malformed_frames tx_fails tx_count tx_packets_count tx_queue_event_count
    tx_rate_limiter_event_count tx_rate_limiter_throttled tx_spoofed_mac_count
    tx_remaining_reqs_count"""
_LATENCIES = """full_create_snapshot diff_create_snapshot load_snapshot pause_vm
    resume_vm vmm_full_create_snapshot vmm_diff_create_snapshot vmm_load_snapshot
    vmm_pause_vm vmm_resume_vm"""
_MMDS = """rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth
    rx_invalid_token rx_no_token rx_count tx_bytes tx_count tx_errors tx_frames
    connections_created connections_destroyed"""
_PUT = """actions boot_source drive logger machine_cfg cpu_cfg metrics network mmds
    vsock pmem serial hotplug_memory"""
_VCPU = """exit_io_in exit_io_out exit_mmio_read exit_mmio_write failures
    kvmclock_ctrl_fails exit_io_in_agg exit_io_out_agg exit_mmio_read_agg
    exit_mmio_write_agg"""
_VSOCK = """activate_fails cfg_fails rx_queue_event_fails tx_queue_event_fails
    ev_queue_event_fails muxer_event_fails conn_event_fails rx_queue_event_count
    tx_queue_event_count rx_bytes_count tx_bytes_count rx_packets_count
    tx_packets_count conns_added conns_killed conns_removed killq_resync
    tx_flush_fails tx_write_fails rx_read_fails"""
_ENTROPY = """activate_fails entropy_event_fails entropy_event_count entropy_bytes
    host_rng_fails entropy_rate_limiter_throttled rate_limiter_event_count"""
_PMEM = """activate_fails cfg_fails event_fails queue_event_count
    rate_limiter_throttled_events rate_limiter_event_count"""
_HOTPLUG = """activate_fails queue_event_fails queue_event_count plug_agg plug_count
    plug_bytes plug_fails unplug_agg unplug_count unplug_bytes unplug_fails
    unplug_discard_fails unplug_all_agg unplug_all_count unplug_all_fails state_agg
    state_count state_fails"""


def _both(names: str) -> str:
    """Requests of each kind, and how many of them could not be understood."""
    return " ".join(f"{name}_count {name}_fails" for name in names.split())


GROUPS = {
    "api_server": "process_startup_time_us process_startup_time_cpu_us",
    "balloon": _BALLOON,
    "block": BLOCK,
    "deprecated_api": "deprecated_http_api_calls",
    "get_api_requests": """instance_info_count machine_cfg_count mmds_count
        vmm_version_count hotplug_memory_count""",
    "i8042": """error_count missed_read_count missed_write_count read_count
        reset_count write_count""",
    "uart": """error_count flush_count missed_read_count missed_write_count
        read_count write_count rate_limiter_dropped_bytes""",
    "latencies_us": _LATENCIES,
    "logger": """missed_metrics_count metrics_fails missed_log_count
        rate_limited_log_count""",
    "mmds": _MMDS,
    "net": NET,
    "patch_api_requests": _both("drive network machine_cfg mmds hotplug_memory pmem"),
    "put_api_requests": _both(_PUT),
    "seccomp": "num_faults",
    "vcpu": _VCPU,
    "vmm": "panic_count",
    "signals": "sigbus sigsegv sigxfsz sigxcpu sigpipe sighup sigill",
    "vsock": _VSOCK,
    "entropy": _ENTROPY,
    "pmem": _PMEM,
    "interrupts": "triggers config_updates",
    "memory_hotplug": _HOTPLUG,
}
_PER_DEVICE = ("block", "net")


def tree(
    now_ms: int,
    sources: Mapping[str, object],
    devices: Iterable[tuple[str, str, object]] = (),
) -> Tree:
    """All there is, counted since the start. ``now_ms`` is Unix time.

    ``sources`` are counters by group, and ``devices`` kind ("block" or "net"), id
    and counters: mappings, or objects with the keys as attributes. What they do
    not have is zero.
    """
    found: Tree = {"utc_timestamp_ms": now_ms}
    listed = [*devices]
    for group, keys in GROUPS.items():
        if group not in _PER_DEVICE:
            found[group] = _read(keys, sources.get(group))
            continue
        one = {
            f"{group}_{name}": _read(keys, counters)
            for kind, name, counters in listed
            if kind == group
        }
        found |= one
        found[group] = _sum(keys, [*one.values()])
    return found


def _read(keys: str, source: object) -> Tree:
    return {
        key: _aggregate(_get(source, key))
        if key.endswith("_agg")
        else _number(_get(source, key))
        for key in keys.split()
    }


def _get(source: object, key: str) -> object:
    if isinstance(source, Mapping):
        return source.get(key)
    return getattr(source, key, None)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _aggregate(value: object) -> Tree:
    return {key: _number(_get(value, key)) for key in _AGGREGATE}


def _sum(keys: str, parts: list[Tree]) -> Tree:
    """Of all devices of a kind; shortest and longest stay zero, as Firecracker's."""
    total: Tree = {}
    for key in keys.split():
        values = [part[key] for part in parts]
        if key.endswith("_agg"):
            total[key] = _aggregate(
                {"sum_us": sum(_number(_get(v, "sum_us")) for v in values)}
            )
        else:
            total[key] = sum(map(_number, values))
    return total


def since(before: Tree, now: Tree) -> Tree:
    """What a flush shows: counters since the flush before, the rest as it is."""
    shown: Tree = {}
    for key, value in now.items():
        old = before.get(key, 0)
        if key in _STORED:
            shown[key] = value
        elif isinstance(value, dict):
            shown[key] = since(old if isinstance(old, dict) else {}, value)
        else:
            shown[key] = value - _number(old)
    return shown
