"""Requests counted, under the metrics' names."""

from __future__ import annotations

import pytest

from vmmd.http.tally import Tally
from vmmd.metrics import GROUPS as METRICS


@pytest.mark.parametrize(
    ("method", "target", "group", "key"),
    [
        ("GET", "/", "get_api_requests", "instance_info"),
        ("GET", "/version", "get_api_requests", "vmm_version"),
        ("GET", "/machine-config", "get_api_requests", "machine_cfg"),
        ("PUT", "/drives/rootfs", "put_api_requests", "drive"),
        ("PUT", "/mmds/config", "put_api_requests", "mmds"),
        ("PUT", "/hotplug/memory", "put_api_requests", "hotplug_memory"),
        ("PATCH", "/network-interfaces/eth0", "patch_api_requests", "network"),
    ],
)
def test_a_request_is_counted(method: str, target: str, group: str, key: str) -> None:
    tally = Tally()
    tally.request(method, target)
    tally.refused(method, target)
    expected = {(group, f"{key}_count"): 1}
    if method != "GET":
        expected[group, f"{key}_fails"] = 1
    assert tally.counts == expected
    assert all(name in METRICS[group].split() for _, name in expected)


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/vm/config"), ("PUT", "/snapshot/load"), ("DELETE", "/drives/a")],
)
def test_what_the_metrics_have_no_name_for_is_not(method: str, target: str) -> None:
    tally = Tally()
    tally.request(method, target)
    tally.refused(method, target)
    assert not tally.counts


def test_durations_deprecations_and_signals() -> None:
    tally = Tally()
    tally.took("create full snapshot", 9, in_turn=False)
    tally.took("create full snapshot", 7, in_turn=True)
    tally.took("pause vm", 5, in_turn=False)
    tally.took("pause vm", 4, in_turn=False)
    tally.deprecated()
    tally.signal("SIGHUP")
    assert tally.counts == {
        ("latencies_us", "full_create_snapshot"): 9,
        ("latencies_us", "vmm_full_create_snapshot"): 7,
        ("latencies_us", "pause_vm"): 4,
        ("deprecated_api", "deprecated_http_api_calls"): 1,
        ("signals", "sighup"): 1,
    }
    assert all(key in METRICS[group].split() for group, key in tally.counts)
