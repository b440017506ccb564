"""The tables say the same as the classes that they fill."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from vmmd import config as c
from vmmd import snapshot_params as p
from vmmd import templates as t
from vmmd.http import bodies as b
from vmmd.http import objects
from vmmd.http.reader import read
from vmmd.http.shapes import REQUIRED, Option, Struct

TABLES = {
    name: value for name, value in vars(objects).items() if isinstance(value, Struct)
}
RENAMED = {"pmem": "pmem_devices"}
LENIENT = {
    "TokenBucketConfig",
    "MetricsConfig",
    "NetworkOverride",
    "VsockOverride",
    "StartHintingCmd",
    "CpuidRegisterModifier",
    "CpuidLeafModifier",
    "RegisterModifier",
    "VmmConfig",
}


def field_names(table: Struct) -> list[str]:
    """The table's names as the class spells them."""
    return [
        RENAMED.get(field.name, field.name.replace("-", "_")) for field in table.fields
    ]


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_fields_stand_in_the_order_of_the_class(table: Struct) -> None:
    assert isinstance(table.make, type)
    assert is_dataclass(table.make)
    assert field_names(table) == [field.name for field in fields(table.make)]


def test_every_class_of_the_api_has_its_table() -> None:
    built = {table.make for table in TABLES.values()}
    values = {t.KvmCapability, t.RegisterFilter, p.SnapshotLoadParams, c.InstanceInfo}
    names = {**vars(c), **vars(p), **vars(t), **vars(b)}
    classes = {value for value in names.values() if is_dataclass(value)}
    assert classes - built == values


def test_who_refuses_unknown_fields() -> None:
    lenient = {table.name for table in TABLES.values() if not table.strict}
    assert lenient == LENIENT


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_defaults_agree_with_the_class(table: Struct) -> None:
    assert isinstance(table.make, type)
    defaults = {field.name: field.default for field in fields(table.make)}
    for field, name in zip(table.fields, field_names(table), strict=True):
        given = field.default
        if given is REQUIRED or table.make in (b.SnapshotLoadConfig, c.VmmConfig):
            continue
        if isinstance(defaults[name], (bool, int, str, tuple)):
            assert defaults[name] == given, field.name


def test_null_is_absent_only_where_there_is_no_default() -> None:
    assert read(objects.BOOT_SOURCE, b'{"kernel_image_path":"k"}') == read(
        objects.BOOT_SOURCE,
        b'{"kernel_image_path":"k","initrd_path":null,"boot_args":null}',
    )
    for table in TABLES.values():
        for field in table.fields:
            if field.default not in (REQUIRED, None):
                assert not isinstance(field.shape, Option), field.name


def test_a_snapshot_may_be_asked_for_an_older_release() -> None:
    body = b'{"snapshot_path":"s","mem_file_path":"m","version":"1.1.0"}'
    params = p.SnapshotCreateParams(p.SnapshotType.FULL, "s", "m", "1.1.0")
    assert read(objects.SNAPSHOT_CREATE, body) == params
    assert [field.name for field in objects.SNAPSHOT_CREATE.listed] == [
        "snapshot_type",
        "snapshot_path",
        "mem_file_path",
    ]


def test_a_cpu_template() -> None:
    body = b"""{
        "kvm_capabilities": ["121", "!56"],
        "cpuid_modifiers": [{"leaf": "0x7", "subleaf": "0b0", "flags": 1, "more": 0,
            "modifiers": [{"register": "ebx", "bitmap": "0b1x0"}]}],
        "msr_modifiers": [{"addr": "0x10a", "bitmap": "x1"}]
    }"""
    assert read(objects.CPU_TEMPLATE, body) == t.CustomCpuTemplate(
        (t.KvmCapability(121, False), t.KvmCapability(56, True)),
        (
            t.CpuidLeafModifier(
                7,
                0,
                1,
                (t.CpuidRegisterModifier("ebx", t.RegisterFilter(0b101, 0b100)),),
            ),
        ),
        (t.MsrModifier(0x10A, t.RegisterFilter(1, 1)),),
    )
