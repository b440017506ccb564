"""Requests to actions, and the texts of those that are none."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd import actions as a
from vmmd import config as c
from vmmd import snapshot_params as p
from vmmd import templates as t
from vmmd.http.routes import ApiFault, Request, checked_id, parse, split

SERDE = "An error occurred when deserializing the json body of a request: "
NO_BODY = {
    ("GET", "/"): a.GetInstanceInfo(),
    ("GET", "//"): a.GetInstanceInfo(),
    ("GET", "/version"): a.GetVersion(),
    ("GET", "/vmmd/state"): a.GetState(),
    ("GET", "/vmmd/snapshot/targets"): a.GetSnapshotTargets(),
    ("GET", "/vmmd/snapshot/progress"): a.GetSnapshotProgress(),
    ("GET", "//version"): a.GetVersion(),
    ("GET", "/version/"): a.GetVersion(),
    ("GET", "/version/more"): a.GetVersion(),
    ("GET", "/machine-config"): a.GetMachineConfig(),
    ("GET", "/vm/config"): a.GetVmConfig(),
    ("GET", "/vm/config/extra"): a.GetVmConfig(),
    ("GET", "/balloon"): a.GetBalloon(),
    ("GET", "/balloon/statistics"): a.GetBalloonStatistics(),
    ("GET", "/balloon/hinting/status"): a.GetHintingStatus(),
    ("GET", "/mmds"): a.GetMmds(),
    ("GET", "/hotplug/memory"): a.GetMemoryHotplug(),
    ("PATCH", "/balloon/hinting/start"): a.StartHinting(c.HintingStart()),
    ("PATCH", "/balloon/hinting/stop"): a.StopHinting(),
    ("DELETE", "/drives/d1"): a.DeleteDevice(a.DeviceKind.DRIVE, "d1"),
    ("DELETE", "/pmem/p_1"): a.DeleteDevice(a.DeviceKind.PMEM, "p_1"),
    ("DELETE", "/network-interfaces/é"): a.DeleteDevice(a.DeviceKind.NET, "é"),
}
WITH_BODY = [
    ("PUT", "/actions", '{"action_type":"InstanceStart"}', a.InstanceStart()),
    ("PUT", "/actions/x", '{"action_type":"FlushMetrics"}', a.FlushMetrics()),
    ("PUT", "/actions", '{"action_type":"SendCtrlAltDel"}', a.SendCtrlAltDel()),
    ("PATCH", "/vm", '{"state":"Paused"}', a.PatchVm(c.VmStateChange.PAUSED)),
    ("PATCH", "/vm/x", '{"state":"Resumed"}', a.PatchVm(c.VmStateChange.RESUMED)),
    (
        "PUT",
        "/machine-config",
        '{"vcpu_count":2,"mem_size_mib":64}',
        a.PutMachineConfig(c.MachineConfig(2, 64)),
    ),
    (
        "PATCH",
        "/machine-config",
        '{"smt":true}',
        a.PatchMachineConfig(c.MachineConfigUpdate(smt=True)),
    ),
    (
        "PUT",
        "/boot-source",
        '{"kernel_image_path":"k"}',
        a.PutBootSource(c.BootSourceConfig("k")),
    ),
    (
        "PUT",
        "/drives/d/x",
        '{"drive_id":"d","is_root_device":false}',
        a.PutDrive(c.DriveConfig("d", None, False)),
    ),
    ("PATCH", "/drives/d", '{"drive_id":"d"}', a.PatchDrive(c.DriveUpdate("d"))),
    (
        "PUT",
        "/network-interfaces/n",
        '{"iface_id":"n","host_dev_name":"t"}',
        a.PutNetworkInterface(c.NetworkInterfaceConfig("n", "t")),
    ),
    (
        "PATCH",
        "/network-interfaces/n",
        '{"iface_id":"n"}',
        a.PatchNetworkInterface(c.NetworkInterfaceUpdate("n")),
    ),
    (
        "PUT",
        "/pmem/p",
        '{"id":"p","path_on_host":"f"}',
        a.PutPmem(c.PmemConfig("p", "f")),
    ),
    ("PATCH", "/pmem/p", '{"id":"p"}', a.PatchPmem(c.PmemUpdate("p"))),
    (
        "PUT",
        "/vsock",
        '{"guest_cid":3,"uds_path":"v"}',
        a.PutVsock(c.VsockConfig(None, 3, "v")),
    ),
    (
        "PUT",
        "/balloon",
        '{"amount_mib":1,"deflate_on_oom":true}',
        a.PutBalloon(c.BalloonConfig(1, True)),
    ),
    ("PATCH", "/balloon", '{"amount_mib":1}', a.PatchBalloon(c.BalloonUpdate(1))),
    ("PATCH", "/balloon/x", '{"amount_mib":1}', a.PatchBalloon(c.BalloonUpdate(1))),
    (
        "PATCH",
        "/balloon/statistics",
        '{"stats_polling_interval_s":1}',
        a.PatchBalloonStatistics(c.BalloonStatsUpdate(1)),
    ),
    (
        "PATCH",
        "/balloon/hinting/start",
        '{"acknowledge_on_stop":false}',
        a.StartHinting(c.HintingStart(False)),
    ),
    ("PATCH", "/balloon/hinting/stop", "whatever", a.StopHinting()),
    ("PUT", "/entropy", "{}", a.PutEntropy(c.EntropyConfig())),
    ("PUT", "/cpu-config", "{}", a.PutCpuConfig(t.CustomCpuTemplate())),
    ("PUT", "/serial", "{}", a.PutSerial(c.SerialConfig())),
    ("PUT", "/logger", "{}", a.PutLogger(c.LoggerConfig())),
    ("PUT", "/metrics", '{"metrics_path":"m"}', a.PutMetrics(c.MetricsConfig("m"))),
    (
        "PUT",
        "/hotplug/memory",
        '{"total_size_mib":128}',
        a.PutMemoryHotplug(c.MemoryHotplugConfig(128)),
    ),
    (
        "PATCH",
        "/hotplug/memory",
        '{"requested_size_mib":2}',
        a.PatchMemoryHotplug(c.MemoryHotplugUpdate(2)),
    ),
    ("PUT", "/mmds", '{"a":[1]}', a.PutMmds({"a": [1]})),
    ("PATCH", "/mmds/x", "null", a.PatchMmds(None)),
    (
        "PUT",
        "/mmds/config",
        '{"network_interfaces":["n"],"version":"V2"}',
        a.PutMmdsConfig(c.MmdsConfig(c.MmdsVersion.V2, ("n",), None, False)),
    ),
    (
        "PUT",
        "/snapshot/create",
        '{"snapshot_path":"s","mem_file_path":"m"}',
        a.CreateSnapshot(p.SnapshotCreateParams(p.SnapshotType.FULL, "s", "m")),
    ),
]


@pytest.mark.parametrize(("asked", "action"), NO_BODY.items(), ids=str)
def test_requests_without_a_body(asked: tuple[str, str], action: a.Action) -> None:
    assert parse(*asked, None) == Request(action)


@pytest.mark.parametrize(("method", "path", "body", "action"), WITH_BODY, ids=str)
def test_requests_with_a_body(
    method: str, path: str, body: str, action: a.Action
) -> None:
    assert parse(method, path, body.encode()) == Request(action)


def test_every_action_can_be_asked_for() -> None:
    asked = {type(action) for action in NO_BODY.values()}
    asked |= {type(action) for _, _, _, action in WITH_BODY} | {a.LoadSnapshot}
    assert asked == set(a.Action.__args__)


FAULTS = [
    ("GET", "/foo", None, "Invalid request method and/or path: GET foo."),
    ("GET", "/version?x", None, "Invalid request method and/or path: GET version?x."),
    ("GET", "/vm", None, "Invalid request method and/or path: GET vm."),
    ("GET", "/vm/foo", None, "Invalid request method and/or path: GET vm."),
    ("GET", "/hotplug", None, "Invalid request method and/or path: GET hotplug."),
    ("GET", "/actions", None, "Invalid request method and/or path: GET actions."),
    ("GET", "/a//b", None, "Invalid request method and/or path: GET a."),
    ("GET", "/", "{}", "GET request cannot have a body."),
    ("GET", "/nowhere", "x", "GET request cannot have a body."),
    ("GET", "/balloon/foo", None, "Unrecognized GET request path `foo`."),
    ("GET", "/balloon/hinting", None, "Unrecognized GET request path `/hinting/`."),
    ("GET", "/balloon/hinting/x", None, "Unrecognized GET request path `/hinting/x`."),
    ("PUT", "/foo", "{}", "Invalid request method and/or path: PUT foo."),
    ("PUT", "/", "{}", "Invalid request method and/or path: PUT ."),
    ("PUT", "/vm", "{}", "Invalid request method and/or path: PUT vm."),
    ("PUT", "/hotplug", "{}", "Invalid request method and/or path: PUT hotplug."),
    ("PUT", "/vm", None, "Empty PUT request."),
    ("PUT", "/nowhere", None, "Empty PUT request."),
    ("PUT", "/snapshot", "{}", "Missing snapshot operation type."),
    (
        "PUT",
        "/snapshot/save",
        "{}",
        "Invalid request method and/or path: PUT /snapshot/save.",
    ),
    ("PUT", "/mmds/data", "{}", "Unrecognized PUT request path `data`."),
    ("PATCH", "/", None, "Empty PATCH request."),
    ("PATCH", "/balloon", None, "Empty PATCH request."),
    ("PATCH", "/balloon/statistics", None, "Empty PATCH request."),
    ("PATCH", "/vsock", "{}", "Invalid request method and/or path: PATCH vsock."),
    ("PATCH", "/hotplug", "{}", "Invalid request method and/or path: PATCH hotplug."),
    ("PATCH", "/balloon/hinting", "{}", "Unrecognized PATCH request path `/hinting/`."),
    ("PATCH", "/machine-config", "{}", "Empty PATCH request."),
    ("PATCH", "/machine-config", "[]", "Empty PATCH request."),
    ("PATCH", "/machine-config", '{"smt":null}', "Empty PATCH request."),
    ("DELETE", "/vsock", None, "Invalid request method and/or path: DELETE vsock."),
    ("DELETE", "/", None, "Invalid request method and/or path: DELETE ."),
    ("DELETE", "/drives/a", "{}", "Empty Delete request."),
    ("DELETE", "/drives", None, "The ID cannot be empty."),
    ("PUT", "/drives", "{}", "The ID cannot be empty."),
    ("PUT", "/drives//d", "{}", "The ID cannot be empty."),
    (
        "PUT",
        "/drives/a-b",
        "no json",
        "API Resource IDs can only contain alphanumeric characters and underscores.",
    ),
    (
        "PUT",
        "/drives/other",
        '{"drive_id":"d","is_root_device":false}',
        "The id from the path does not match the id from the body!",
    ),
    (
        "PATCH",
        "/pmem/other",
        '{"id":"p"}',
        "The id from the path does not match the id from the body!",
    ),
    (
        "PUT",
        "/network-interfaces/a",
        '{"iface_id":"b","host_dev_name":"t"}',
        "The id from the path [a] does not match the id from the body [b]!",
    ),
    (
        "PUT",
        "/boot-source",
        "{}",
        f"{SERDE}missing field `kernel_image_path` at line 1 column 2.",
    ),
    (
        "PATCH",
        "/balloon/foo",
        "{}",
        f"{SERDE}missing field `amount_mib` at line 1 column 2.",
    ),
    (
        "PUT",
        "/snapshot/load",
        '{"snapshot_path":"s"}',
        f"{SERDE}missing field: either `mem_backend` or `mem_file_path` is required.",
    ),
    (
        "PUT",
        "/snapshot/load",
        '{"snapshot_path":"s","mem_file_path":"m",'
        '"mem_backend":{"backend_path":"m","backend_type":"File"}}',
        f"{SERDE}too many fields: either `mem_backend` or `mem_file_path` exclusively"
        " is required.",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "text"), FAULTS, ids=str)
def test_faults(method: str, path: str, body: str | None, text: str) -> None:
    with pytest.raises(ApiFault) as caught:
        parse(method, path, None if body is None else body.encode())
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("method", "path", "body", "debug"),
    [
        ("PUT", "/vm", None, 'Generic(BadRequest, "Empty PUT request.")'),
        ("GET", "/foo", None, 'InvalidPathMethod("foo", Get)'),
        ("DELETE", "/drives", None, "EmptyID"),
        ("DELETE", "/drives/a b", None, "InvalidID"),
        (
            "PATCH",
            "/vm",
            b"{}",
            'SerdeJson(Error("missing field `state`", line: 1, column: 2))',
        ),
    ],
)
def test_what_the_log_has_of_a_fault(
    method: str, path: str, body: bytes | None, debug: str
) -> None:
    with pytest.raises(ApiFault) as caught:
        parse(method, path, body)
    assert caught.value.debug == debug


OLD = [
    (
        "PUT",
        "/machine-config",
        {"vcpu_count": 1, "mem_size_mib": 1, "cpu_template": "None"},
        "PUT /machine-config: cpu_template field is deprecated.",
    ),
    (
        "PATCH",
        "/machine-config",
        {"cpu_template": "T2"},
        "PATCH /machine-config: cpu_template field is deprecated.",
    ),
    (
        "PUT",
        "/vsock",
        {"vsock_id": "v", "guest_cid": 3, "uds_path": "u"},
        "PUT /vsock: vsock_id field is deprecated.",
    ),
    (
        "PUT",
        "/mmds/config",
        {"network_interfaces": []},
        "PUT /mmds/config: V1 is deprecated. Use V2 instead.",
    ),
    (
        "PUT",
        "/snapshot/create",
        {"snapshot_path": "s", "mem_file_path": "m", "version": "1.0.0"},
        "PUT /snapshot/create: 'version' field is deprecated.",
    ),
    (
        "PUT",
        "/snapshot/load",
        {"snapshot_path": "s", "mem_file_path": "m"},
        "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are"
        " deprecated.",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "text"), OLD, ids=str)
def test_old_ways_are_named(
    method: str, path: str, body: dict[str, object], text: str
) -> None:
    assert parse(method, path, json.dumps(body).encode()).deprecation == text


def test_loading_takes_its_memory_from_either_field() -> None:
    old = b'{"snapshot_path":"s","mem_file_path":"m","enable_diff_snapshots":true}'
    params = p.SnapshotLoadParams(
        "s",
        p.MemBackendConfig("m", p.MemBackendType.FILE),
        track_dirty_pages=True,
        resume_vm=False,
        network_overrides=(),
        vsock_override=None,
        clock_realtime=False,
    )
    assert parse("PUT", "/snapshot/load", old).action == a.LoadSnapshot(params)
    new = (
        b'{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"'
        b'},"track_dirty_pages":true}'
    )
    assert parse("PUT", "/snapshot/load", new) == Request(a.LoadSnapshot(params))


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("", ()),
        ("/", ()),
        ("///", ()),
        ("/a", ("a",)),
        ("//a/", ("a",)),
        ("/a//", ("a", "")),
        ("/a/b/c", ("a", "b", "c")),
        ("*", ("*",)),
    ],
)
def test_paths(path: str, tokens: tuple[str, ...]) -> None:
    assert split(path) == tokens


@pytest.mark.parametrize("name", ["a", "A_9", "_", "é", "二", "٣", "½", "ª"])
def test_ids(name: str) -> None:
    assert checked_id(("drives", name)) == name


@pytest.mark.parametrize("name", ["a-b", "a b", "a.b", "%41", "\u200b", "\u0301", "€"])
def test_ids_of_other_characters(name: str) -> None:
    with pytest.raises(ApiFault, match="can only contain alphanumeric"):
        checked_id(("drives", name))


@given(
    st.sampled_from(("GET", "PUT", "PATCH", "DELETE")),
    st.text("/abimdsvhotplugnectr-", max_size=20),
    st.none() | st.binary(min_size=1, max_size=20),
)
def test_nothing_else_comes_of_a_request(
    method: str, path: str, body: bytes | None
) -> None:
    with suppress(ApiFault):
        assert isinstance(parse(method, path, body), Request)
