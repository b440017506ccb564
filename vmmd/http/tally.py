"""Requests counted, under the names that the metrics have for them."""

from __future__ import annotations

from collections import Counter

GROUPS = {
    "GET": "get_api_requests",
    "PUT": "put_api_requests",
    "PATCH": "patch_api_requests",
}
# What a path's first word is counted as; what is not here is not counted.
_NAMES = {
    "actions": "actions",
    "boot-source": "boot_source",
    "cpu-config": "cpu_cfg",
    "drives": "drive",
    "hotplug": "hotplug_memory",
    "logger": "logger",
    "machine-config": "machine_cfg",
    "metrics": "metrics",
    "mmds": "mmds",
    "network-interfaces": "network",
    "pmem": "pmem",
    "serial": "serial",
    "vsock": "vsock",
}
_READ = {
    "": "instance_info",
    "hotplug": "hotplug_memory",
    "machine-config": "machine_cfg",
    "mmds": "mmds",
    "version": "vmm_version",
}
# The log's name for what takes long -> the metrics'.
_TIMED = {
    "create diff snapshot": "diff_create_snapshot",
    "create full snapshot": "full_create_snapshot",
    "load snapshot": "load_snapshot",
    "pause vm": "pause_vm",
    "resume vm": "resume_vm",
}


class Tally:
    """Counts since the start, by group and key of the metrics."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def request(self, method: str, target: str) -> None:
        """A request has come."""
        if key := _key(method, target):
            self.counts[GROUPS[method], f"{key}_count"] += 1

    def refused(self, method: str, target: str) -> None:
        """It could not be understood. Reads have no such count."""
        if method != "GET" and (key := _key(method, target)):
            self.counts[GROUPS[method], f"{key}_fails"] += 1

    def deprecated(self) -> None:
        """It was asked in an old way."""
        self.counts["deprecated_api", "deprecated_http_api_calls"] += 1

    def signal(self, name: str) -> None:
        """A signal was caught: "SIGHUP"."""
        self.counts["signals", name.lower()] += 1

    @property
    def has_died(self) -> bool:
        """Whether a signal was caught that ends the process."""
        caught = {key for group, key in self.counts if group == "signals"}
        return not caught <= {"sigpipe"}

    def took(self, name: str, duration_us: int, *, in_turn: bool) -> None:
        """How long the last ``name`` took; ``in_turn``: without the wait for its turn.

        ``name`` is the log's: "pause vm", "create full snapshot". Microseconds.
        """
        key = _TIMED[name]
        self.counts["latencies_us", f"vmm_{key}" if in_turn else key] = duration_us


def _key(method: str, target: str) -> str | None:
    if method not in GROUPS:
        return None
    first = target.lstrip("/").partition("/")[0]
    return (_READ if method == "GET" else _NAMES).get(first)
