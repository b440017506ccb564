"""Answers to bodies: keys, their order, and what is null or left out."""

from __future__ import annotations

import json

import pytest

from vmmd import config as c
from vmmd import templates as t
from vmmd.actions import NO_CONTENT, Answer, JsonValue
from vmmd.http import render
from vmmd.resources.boot import BootSource
from vmmd.resources.drives import Drive
from vmmd.resources.store import VmResources


class NoFile:
    """Stands for an open file."""

    def close(self) -> None:
        """Nothing is held."""


def test_bodies() -> None:
    assert render.body(NO_CONTENT) == b""
    assert render.body(Answer(200, {"a": [1, None]})) == b'{"a":[1,null]}'
    assert render.fault('no "é"') == '{"fault_message":"no \\"é\\""}'.encode()


def test_instance_info() -> None:
    info = c.InstanceInfo("i", "Not started", "1.16.1", render.APP_NAME)
    assert render.body(render.instance_info(info)) == (
        b'{"id":"i","state":"Not started","vmm_version":"1.16.1",'
        b'"app_name":"Firecracker"}'
    )
    assert render.version("1.16.1").body == {"firecracker_version": "1.16.1"}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (None, ""),
        (t.CustomCpuTemplate(), ""),
        (c.CpuTemplateName.T2S, '"cpu_template":"T2S",'),
    ],
)
def test_machine_config(
    template: c.CpuTemplateName | t.CustomCpuTemplate | None, shown: str
) -> None:
    machine = c.MachineConfig(cpu_template=template)
    assert render.body(render.machine_config(machine)).decode() == (
        f'{{"vcpu_count":1,"mem_size_mib":128,"smt":false,{shown}'
        '"track_dirty_pages":false,"huge_pages":"None"}'
    )


def test_an_empty_configuration() -> None:
    assert render.body(render.vm_config(VmResources())) == (
        b'{"balloon":null,"drives":[],"boot-source":{"kernel_image_path":"",'
        b'"initrd_path":null,"boot_args":null},"cpu-config":null,"logger":null,'
        b'"machine-config":{"vcpu_count":1,"mem_size_mib":128,"smt":false,'
        b'"track_dirty_pages":false,"huge_pages":"None"},"metrics":null,'
        b'"mmds-config":null,"network-interfaces":[],"vsock":null,"entropy":null,'
        b'"pmem":[],"memory-hotplug":null}'
    )


def test_a_full_configuration() -> None:
    limiter = c.RateLimiterConfig(c.TokenBucketConfig(100, 5, 10), None)
    drive = c.DriveConfig(
        "d",
        None,
        True,
        c.CacheType.WRITEBACK,
        False,
        "disk.img",
        limiter,
        c.IoEngine.SYNC,
    )
    resources = VmResources(
        boot=BootSource(c.BootSourceConfig("k", None, "quiet"), NoFile(), None),
        drives=(Drive(drive, NoFile()),),
        balloon=c.BalloonConfig(1, True),
        entropy=c.EntropyConfig(),
        pmem=(c.PmemConfig("p", "f"),),
        memory_hotplug=c.MemoryHotplugConfig(256),
    )
    shown = json.loads(render.body(render.vm_config(resources)))
    assert shown["drives"] == [
        {
            "drive_id": "d",
            "partuuid": None,
            "is_root_device": True,
            "cache_type": "Writeback",
            "is_read_only": False,
            "path_on_host": "disk.img",
            "rate_limiter": {
                "bandwidth": {"size": 100, "one_time_burst": 5, "refill_time": 10},
                "ops": None,
            },
            "io_engine": "Sync",
            "socket": None,
        }
    ]
    assert shown["boot-source"]["boot_args"] == "quiet"
    assert shown["balloon"] == {
        "amount_mib": 1,
        "deflate_on_oom": True,
        "stats_polling_interval_s": 0,
        "free_page_hinting": False,
        "free_page_reporting": False,
    }
    assert shown["entropy"] == {"rate_limiter": None}
    assert shown["pmem"][0]["root_device"] is False
    assert shown["memory-hotplug"]["slot_size_mib"] == 128


def test_what_is_left_out() -> None:
    assert render.plain(c.VsockConfig(None, 3, "v")) == {
        "guest_cid": 3,
        "uds_path": "v",
    }
    with pytest.raises(TypeError):
        render.plain(object())


def test_keys_in_order() -> None:
    inner: JsonValue = [{"d": 1, "c": 2}]
    value: JsonValue = {"b": inner, "a": 1.5, "é": None, "B": 0}
    assert list(json.loads(render.body(Answer(200, render.sorted_keys(value))))) == [
        "B",
        "a",
        "b",
        "é",
    ]
    assert json.dumps(render.sorted_keys(inner)) == '[{"c": 2, "d": 1}]'
