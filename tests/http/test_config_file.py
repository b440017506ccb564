"""Config files: what they may say, and the order in which it counts."""

from __future__ import annotations

import pytest

from vmmd import actions as a
from vmmd import config as c
from vmmd import templates as t
from vmmd.http.config_file import parse_config, parse_template, steps
from vmmd.resources.fault import ResourceFault

SMALLEST = b'{"boot-source":{"kernel_image_path":"k"},"drives":[]}'
FULL = b"""{
  "unknown": {"deep": [1e400, "\\ud800"]},
  "memory-hotplug": {"total_size_mib": 128},
  "pmem": [{"id": "p", "path_on_host": "f"}],
  "entropy": {},
  "mmds-config": {"network_interfaces": ["n"]},
  "balloon": {"amount_mib": 1, "deflate_on_oom": true},
  "vsock": {"guest_cid": 3, "uds_path": "v"},
  "network-interfaces": [{"iface_id": "n", "host_dev_name": "t"}],
  "drives": [{"drive_id": "d", "is_root_device": true}, {"drive_id": "e",
              "is_root_device": false}],
  "boot-source": {"kernel_image_path": "k"},
  "cpu-config": {"msr_modifiers": []},
  "machine-config": {"vcpu_count": 2, "mem_size_mib": 64},
  "metrics": {"metrics_path": "m"},
  "logger": {"level": "debug"}
}"""


def test_the_smallest_file() -> None:
    config = parse_config(SMALLEST)
    assert steps(config) == (a.PutBootSource(c.BootSourceConfig("k")),)


def test_the_order_of_steps() -> None:
    kinds = [type(step) for step in steps(parse_config(FULL))]
    assert kinds == [
        a.PutLogger,
        a.PutMetrics,
        a.PutMachineConfig,
        a.PutCpuConfig,
        a.PutBootSource,
        a.PutDrive,
        a.PutDrive,
        a.PutNetworkInterface,
        a.PutVsock,
        a.PutBalloon,
        a.PutMmdsConfig,
        a.PutEntropy,
        a.PutPmem,
        a.PutMemoryHotplug,
    ]


def test_drives_keep_their_order() -> None:
    drives = [
        step for step in steps(parse_config(FULL)) if isinstance(step, a.PutDrive)
    ]
    assert [drive.config.drive_id for drive in drives] == ["d", "e"]


def test_a_template_may_be_a_path() -> None:
    text = SMALLEST.replace(b"{", b'{"cpu-config":"cpu.json",', 1)
    config = parse_config(text)
    assert config.cpu_config == "cpu.json"
    assert steps(config) == (a.PutBootSource(c.BootSourceConfig("k")),)
    assert parse_template(b"{}") == t.CustomCpuTemplate()


def test_null_is_absent() -> None:
    names = (b"balloon", b"logger", b"machine-config", b"metrics", b"mmds-config")
    nulls = b",".join(b'"%s":null' % name for name in (*names, b"vsock", b"entropy"))
    more = b'"memory-hotplug":null,"cpu-config":null,'
    text = SMALLEST.replace(b"{", b"{" + nulls + b"," + more, 1)
    assert parse_config(text) == parse_config(SMALLEST)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"{}", "missing field `drives` at line 1 column 2"),
        (b'{"drives":[]}', "missing field `boot-source` at line 1 column 13"),
        (
            b'{"drives":null}',
            "invalid type: null, expected a sequence at line 1 column 14",
        ),
        (
            b'{"network-interfaces":null}',
            "invalid type: null, expected a sequence at line 1 column 26",
        ),
        (b'{"drives":[{}]}', "missing field `drive_id` at line 1 column 13"),
        (
            b'{"cpu-config":5}',
            "data did not match any variant of untagged enum CustomCpuTemplateOrPath"
            " at line 1 column 16",
        ),
        (
            b'{"cpu-config":{"x":[]}}',
            "data did not match any variant of untagged enum CustomCpuTemplateOrPath"
            " at line 1 column 23",
        ),
        (
            b"[]",
            "invalid length 0, expected struct VmmConfig with 13 elements at line 1"
            " column 2",
        ),
    ],
)
def test_faults(text: bytes, fault: str) -> None:
    with pytest.raises(ResourceFault) as caught:
        parse_config(text)
    assert caught.value.file_text == f"Invalid JSON: {fault}"


def test_what_standard_error_has_of_a_fault() -> None:
    with pytest.raises(ResourceFault) as caught:
        parse_config(b"{")
    assert caught.value.debug == (
        'InvalidJson(Error("EOF while parsing an object", line: 1, column: 1))'
    )
    with pytest.raises(ResourceFault, match="unknown field `x`"):
        parse_template(b'{"x":1}')
