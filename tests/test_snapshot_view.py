"""A state file as names and values."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.records import example, record_classes
from tests.helpers.state_file import HEADER, MANIFEST
from vmmd.cpu.state import VcpuState
from vmmd.snapshot_view import (
    Change,
    changes,
    header_view,
    jsonable,
    leaves,
    memory_changes,
    record_view,
    text,
)
from vmmd.state.codec import Entry, pack

VCPU = example(VcpuState)
NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.one_of(st.integers(), st.booleans(), st.none(), st.binary(), NAMES)
TREES = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=8,
)


def view_of(record: object) -> dict[str, object]:
    return dict(leaves(record_view(pack(record))))


def test_what_the_kernel_keeps_as_bytes_has_names() -> None:
    shown = view_of(VCPU)
    assert {"lapic.spiv", "xsave.xmm0", "xsave.mxcsr", "regs.rip"} <= shown.keys()
    assert "lapic.regs" not in shown
    assert all(not path.startswith("msrs[") for path in shown)


def test_a_register_that_changes_is_one_path() -> None:
    lapic = dataclasses.replace(VCPU, lapic=VCPU.lapic.set(0xF0, 0x1FF))
    old, new = (record_view(pack(vcpu)) for vcpu in (VCPU, lapic))
    assert [change.path for change in changes(old, new)] == ["lapic.spiv"]


def test_msrs_and_leaves_are_compared_by_number_not_by_place() -> None:
    msrs = ((0x10, 1), (0xC000_0080, 2))
    one = dataclasses.replace(VCPU, msrs=msrs)
    other = dataclasses.replace(VCPU, msrs=msrs[::-1], cpuid=VCPU.cpuid[::-1])
    assert list(changes(record_view(pack(one)), record_view(pack(other)))) == []
    gone = dataclasses.replace(VCPU, msrs=msrs[:1])
    found = list(changes(record_view(pack(one)), record_view(pack(gone))))
    assert found == [Change("msrs.efer", "2", None)]


def test_every_record_can_be_shown_compared_and_written_as_json() -> None:
    for cls in record_classes().values():
        entry = pack(example(cls))
        tree = record_view(entry)
        assert list(changes(tree, tree)) == []
        json.dumps(jsonable(tree))
        for _, value in leaves(tree):
            assert "\n" not in text(value)


def test_fields_of_another_shape_are_shown_as_they_are() -> None:
    odd: tuple[object, ...] = (7, b"short", (1, 2), None, ((1, "x"),), ({},))
    for value in odd:
        for kind, name in (
            ("vcpu", "msrs"),
            ("vcpu", "cpuid"),
            ("kvm_lapic_state", "regs"),
            ("kvm_xsave", "region"),
            ("kvm_xcrs", "xcrs"),
            ("net", "guest_mac"),
        ):
            json.dumps(jsonable(record_view(Entry(kind, "", 9, {name: value}))))


@given(TREES, TREES)
def test_changes_are_the_paths_whose_values_differ(
    before: object, after: object
) -> None:
    old, new = dict(leaves(before)), dict(leaves(after))
    found = {change.path for change in changes(before, after)}
    for path in old.keys() | new.keys():
        same = path in old and path in new and repr(old[path]) == repr(new[path])
        assert (path not in found) is same


def test_the_header_and_the_memory() -> None:
    later = dataclasses.replace(HEADER, time=HEADER.time + 1, devices=())
    found = {change.path for change in changes(header_view(HEADER), header_view(later))}
    assert found == {"time", "devices[0]", "devices[1]", "devices"}
    assert list(memory_changes(MANIFEST, MANIFEST)) == []
    other = dataclasses.replace(MANIFEST, pages=b"\x7f" + MANIFEST.pages[1:])
    after = {change.path: change.after for change in memory_changes(MANIFEST, other)}
    assert after == {"data_pages": "511", "blocks": "1 of 1 differ: 0"}


def test_blocks_that_follow_each_other_are_a_range() -> None:
    size = 8 << 20
    one = dataclasses.replace(
        MANIFEST,
        size=size,
        regions=((0, size),),
        pages=bytes(256),
        checksums=bytes(16),
        unverified=b"\0",
    )
    other = dataclasses.replace(one, pages=b"\1" + bytes(127) + (b"\1" + bytes(63)) * 2)
    found = {change.path: change.after for change in memory_changes(one, other)}
    assert found["blocks"] == "3 of 4 differ: 0, 2-3"


KNOWN = [
    ("vcpu", "msrs"),
    ("vcpu", "cpuid"),
    ("kvm_lapic_state", "regs"),
    ("kvm_xsave", "region"),
    ("kvm_xcrs", "xcrs"),
    ("net", "guest_mac"),
]
INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), INTEGERS, st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["@", "function", "index", "x"]), inner),
    ),
    max_leaves=10,
)


@given(st.sampled_from(KNOWN), PLAIN)
def test_whatever_stands_in_a_file_can_be_shown(
    where: tuple[str, str], value: object
) -> None:
    tree = record_view(Entry(where[0], "", 1, {where[1]: value}))
    json.dumps(jsonable(tree))
    for path, leaf in leaves(tree):
        assert isinstance(path + text(leaf), str)
    assert list(changes(tree, tree)) == []
