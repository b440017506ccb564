"""Both readers of serde.py accept the same; what is written is read again."""

from __future__ import annotations

import json
import typing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import CacheType
from vmmd.http import objects, reader
from vmmd.http.serde import dump, load, load_quick
from vmmd.http.shapes import (
    REQUIRED,
    Any,
    Bool,
    Enum,
    Int,
    Option,
    Seq,
    Shape,
    Struct,
    Text,
    Untagged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn

STRUCTS = [value for value in vars(objects).values() if isinstance(value, Struct)]
SAMPLES: dict[object, tuple[str, ...]] = {
    "log_level": ("Info", "wArNiNg"),
    "mac_address": ("06:00:AC:10:00:02",),
    "ipv4_address": ("169.254.169.254",),
    "prefixed_u32": ("0x1f", "0b101"),
    "kvm_capability": ("121", "!56"),
    "cpuid_register": ("eax", "edx"),
    "bitmap32": ("0b1x0_1", ""),
    "bitmap64": ("x" * 64, "0b01"),
    "semver": ("1.5.0", "1.0.0-a.1+b"),
}
NONSENSE = (
    *("null", "true", "0", "-1", "1.5", "1e3", "-0", "256", "99999999999999999999"),
    *('""', '"x"', '"\\u00e9"', "[]", "{}", "[1]", '{"a":1}', "tru", '{"Sync":null}'),
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)


@st.composite
def documents(draw: DrawFn, shape: Shape) -> str:
    """JSON of a shape, or nearly."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(NONSENSE))
    return draw(_MAKERS[type(shape)](shape))


def _structs(shape: Struct) -> st.SearchStrategy[str]:
    @st.composite
    def make(draw: DrawFn) -> str:
        keep = draw(st.lists(st.booleans(), min_size=9, max_size=13))
        fields = [
            field
            for place, field in enumerate(shape.fields)
            if field.absent() is REQUIRED or keep[place % 9]
        ]
        pairs = [
            f"{json.dumps(field.name)}:{draw(documents(field.shape))}"
            for field in draw(st.permutations(fields))
        ]
        extra = draw(st.sampled_from(([],) * 6 + (['"zz":[1]'], pairs[:1])))
        return "{" + ",".join(pairs + extra) + "}"

    return make()


def _seqs(shape: Seq) -> st.SearchStrategy[str]:
    items = st.lists(documents(shape.inner), max_size=2)
    return items.map(lambda texts: f"[{','.join(texts)}]")


def _texts(shape: Text) -> st.SearchStrategy[str]:
    if shape.convert is None:
        return TEXTS.map(dump)
    name = getattr(shape.convert, "__name__", "")
    return st.sampled_from(SAMPLES[name]).map(json.dumps)


def _ints(shape: Int) -> st.SearchStrategy[str]:
    return st.integers(0, (1 << shape.bits) - 1).map(str)


def _options(shape: Option) -> st.SearchStrategy[str]:
    return st.just("null") | documents(shape.inner)


def _untagged(shape: Untagged) -> st.SearchStrategy[str]:
    return st.one_of(*(documents(option) for option in shape.options))


_MAKERS: dict[type, Callable[[typing.Any], st.SearchStrategy[str]]] = {
    Bool: lambda _: st.sampled_from(("true", "false")),
    Int: _ints,
    Text: _texts,
    Enum: lambda shape: st.sampled_from(shape.names).map(json.dumps),
    Option: _options,
    Seq: _seqs,
    Any: lambda _: st.sampled_from(NONSENSE),
    Untagged: _untagged,
    Struct: _structs,
}


def outcome(shape: Shape, body: bytes, read: Callable[..., object]) -> object:
    """The value, or the text of the refusal."""
    try:
        return read(shape, body)
    except (ValueError, RecursionError) as error:
        return str(error)


@given(st.data())
def test_both_readers_accept_the_same(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(STRUCTS))
    body = data.draw(documents(shape)).encode()
    exact = outcome(shape, body, reader.read)
    assert outcome(shape, body, load) == exact
    try:
        quick = load_quick(shape, body)
    except (ValueError, RecursionError):
        return
    assert quick == exact


@given(st.data())
def test_damaged_documents_get_one_verdict(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(STRUCTS))
    body = bytearray(data.draw(documents(shape)).encode())
    place = data.draw(st.integers(0, len(body)))
    body[place : place + data.draw(st.integers(0, 2))] = data.draw(
        st.binary(max_size=1) | st.sampled_from((b",", b'"', b"}", b"]", b":", b" "))
    )
    exact = outcome(shape, bytes(body), reader.read)
    assert outcome(shape, bytes(body), load) == exact


def test_plain_bodies_take_the_quick_way() -> None:
    body = b'{"vcpu_count":2,"mem_size_mib":256}'
    assert load_quick(objects.MACHINE_CONFIG, body)
    body = b'{"drive_id":"d","is_root_device":true,"rate_limiter":{"ops":null}}'
    assert load_quick(objects.DRIVE, body)


def test_what_the_quick_way_leaves_to_the_other() -> None:
    for body in (b"1.5", b"-0", b'"\\u0041"', b"NaN", b"1e400", b"9" * 30):
        with pytest.raises(ValueError):  # noqa: PT011 - any kind of it will do
            load_quick(objects.JSON, body)
    assert load(objects.JSON, b'[1.5, "\\u0041"]') == [1.5, "A"]
    deep = b"[" * 20000
    assert str(outcome(objects.JSON, deep, load)).startswith("recursion limit")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | TEXTS,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_what_is_written_is_read_again(value: object) -> None:
    text = dump(value)
    assert load(objects.JSON, text.encode()) == value
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_writing() -> None:
    assert dump({"é": [None, True, 1, 1e16, 0.5, "\x7f\n\x01"]}) == (
        '{"é":[null,true,1,1e+16,0.5,"\x7f\\n\\u0001"]}'
    )
    assert dump(CacheType.UNSAFE) == '"Unsafe"'
    with pytest.raises(TypeError):
        dump({"a": object()})
