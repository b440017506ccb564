"""Records to plain maps and back; what a field may hold."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.errors import SnapshotError
from vmmd.state.codec import Entry, kind_of, pack, schema, unpack
from vmmd.state.record import I64, U8, U16, U32, record


@record("inner", 2)
class Inner:
    """A record inside another."""

    low: U8 = 0
    flag: bool = False

    def __post_init__(self) -> None:
        """SnapshotError for the one value that no type forbids."""
        if self.low == 99:
            raise SnapshotError("inner: low is 99")


@record("outer", 1)
class Outer:
    """One field of each type."""

    whole: int
    name: str
    data: bytes
    signed: I64 = 0
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    pair: tuple[U16, str] = (0, "")
    table: tuple[tuple[U32, int], ...] = ()
    maybe: U8 | None = None


class Colour(enum.StrEnum):
    """A string enumeration."""

    RED = "red"


class Number(enum.IntEnum):
    """An integer enumeration."""

    ONE = 1


U64_TOP = (1 << 64) - 1
INNERS = st.builds(Inner, low=st.integers(0, 98), flag=st.booleans())
OUTERS = st.builds(
    Outer,
    whole=st.integers(0, U64_TOP),
    name=st.text(),
    data=st.binary(),
    signed=st.integers(-(1 << 63), (1 << 63) - 1),
    inner=st.none() | INNERS,
    inners=st.lists(INNERS, max_size=3).map(tuple),
    pair=st.tuples(st.integers(0, 0xFFFF), st.text()),
    table=st.lists(
        st.tuples(st.integers(0, 0xFFFF_FFFF), st.integers(0, U64_TOP)), max_size=5
    ).map(tuple),
    maybe=st.none() | st.integers(0, 255),
)
GOOD = pack(Outer(whole=1, name="a", data=b"b", inner=Inner(), inners=(Inner(),)), "x")


@given(OUTERS)
def test_what_is_packed_is_unpacked(outer: Outer) -> None:
    entry = pack(outer, "x")
    assert (entry.kind, entry.id, entry.version) == ("outer", "x", 1)
    assert list(entry.fields) == sorted(entry.fields)
    assert unpack(entry, Outer) == outer


def test_a_nested_record_says_what_it_is() -> None:
    assert GOOD.fields["inner"] == {"@": "inner/2", "flag": False, "low": 0}


def test_enumerations_become_what_they_stand_for() -> None:
    entry = pack(Outer(whole=Number.ONE, name=Colour.RED, data=b""))
    assert type(entry.fields["whole"]) is int
    assert type(entry.fields["name"]) is str
    assert unpack(entry, Outer).name == "red"


INNER = {"@": "inner/2", "flag": False, "low": 0}


def nested(depth: int) -> object:
    """An array in an array: repr() gives up at a thousand."""
    value: object = 1
    for _ in range(depth):
        value = (value,)
    return value


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("whole", -1, "whole: -1 is out of range"),
        ("whole", 1 << 64, f"whole: {1 << 64} is out of range"),
        ("whole", True, "whole: is a boolean, not an integer"),
        ("whole", None, "whole: is nothing, not an integer"),
        ("signed", 1 << 63, f"signed: {1 << 63} is out of range"),
        ("name", b"a", "name: is bytes, not a string"),
        ("data", "a", "data: is a string, not bytes"),
        ("maybe", 256, "maybe: 256 is out of range"),
        ("inner", (), "inner: is an array, not inner/2"),
        ("inner", {**INNER, "@": "inner/1"}, "inner: is 'inner/1', not inner/2"),
        ("inner", {**INNER, "@": nested(5000)}, "inner: is an array, not inner/2"),
        ("inner", {"@": "inner/2", "low": 0}, "inner.flag: is missing"),
        ("inner", {**INNER, "z": 0}, "inner.z: is not known"),
        ("inner", {**INNER, "flag": 0}, "inner.flag: is an integer, not a boolean"),
        ("inner", {**INNER, "low": 256}, "inner.low: 256 is out of range"),
        ("inner", {**INNER, "low": 99}, "inner: low is 99"),
        ("inners", 5, "inners: is an integer, not an array"),
        ("inners", (INNER, INNER, {}), "inners[2].@: is missing"),
        ("inners", (INNER, {**INNER, "low": -1}), "inners[1].low: -1 is out of range"),
        ("pair", (1,), "pair: has 1 items, not 2"),
        ("pair", (1, 2), "pair[1]: is an integer, not a string"),
        ("table", ((1, 2), (1 << 32, 2)), f"table[1][0]: {1 << 32} is out of range"),
        ("table", ((1, 2), (1, 2, 3)), "table[1]: has 3 items, not 2"),
        ("table", ((1, 2), 7), "table[1]: is an integer, not an array"),
        ("table", ((True, 2),), "table[0][0]: is a boolean, not an integer"),
        ("table", {}, "table: is a map, not an array"),
        ("table", ((0, 0),) * 70_000, "table: has 70000 items, at most 65536"),
    ],
)
def test_what_cannot_stand_in_a_field(field: str, value: object, text: str) -> None:
    entry = Entry("outer", "x", 1, {**GOOD.fields, field: value})
    with pytest.raises(SnapshotError) as caught:
        unpack(entry, Outer)
    assert str(caught.value) == f"outer x: {text}"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("whole", -1, "whole: -1 is out of range"),
        ("whole", True, "whole: is a boolean, not an integer"),
        ("name", "\udc80", "name: is not Unicode"),
        ("name", 5, "name: is an integer, not a string"),
        ("name", "ü" * 0x8001, "name: has 65538 bytes, at most 65536"),
        ("data", bytearray(2), "data: is bytearray, not bytes"),
        ("inner", 5, "inner: is an integer, not inner/2"),
        ("table", ((0, -1),), "table[0][1]: -1 is out of range"),
        ("inners", [], "inners: is list, not an array"),
    ],
)
def test_what_cannot_be_packed(field: str, value: object, text: str) -> None:
    values: dict[str, Any] = {"whole": 1, "name": "", "data": b"", field: value}
    with pytest.raises(SnapshotError) as caught:
        pack(Outer(**values))
    assert str(caught.value) == f"outer: {text}"


def test_missing_and_unknown_fields_are_named() -> None:
    fields = dict(GOOD.fields)
    del fields["pair"]
    with pytest.raises(SnapshotError, match="outer x: pair: is missing"):
        unpack(Entry("outer", "x", 1, fields), Outer)
    with pytest.raises(SnapshotError, match="outer x: new: is not known"):
        unpack(Entry("outer", "x", 1, {**GOOD.fields, "new": 1}), Outer)


def test_another_version_or_kind_is_refused() -> None:
    for kind, version in (("outer", 2), ("other", 1)):
        with pytest.raises(SnapshotError, match="not outer version 1"):
            unpack(Entry(kind, "x", version, GOOD.fields), Outer)


def test_only_records_can_be_packed() -> None:
    with pytest.raises(TypeError, match="int is no record"):
        kind_of(int)


def test_a_type_that_no_field_can_have_is_a_bug_at_once() -> None:
    @record("odd", 1)
    class Odd:
        """A float is no plain value."""

        value: float

    with pytest.raises(TypeError, match="float is no record"):
        schema(Odd)
