"""The store: merge patches, pointers, the text format, the limit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.http.serde import dump
from vmmd.mmds.store import (
    Json,
    LimitExceeded,
    NotFound,
    NotInitialized,
    Store,
    UnsupportedValue,
    find,
    merged,
)

LIMIT = 51_200
TREE: Json = {
    "b": {"z": {}, "a": "x", "": "nothing"},
    "a/b": {"~": "tilde", "~1": "escaped"},
    "list": ["zero", {"in": "side"}],
    "number": 5,
    "text": "a\nb",
    "null": None,
}
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


def store(value: Json = None, limit: int = LIMIT) -> Store:
    made = Store(limit, dump)
    made.put(value)
    return made


# The examples of RFC 7396, appendix A.
MERGES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), MERGES)
def test_merging_is_rfc_7396(target: Json, patch: Json, result: Json) -> None:
    before = json.dumps(target)
    assert merged(target, patch) == result
    assert json.dumps(target) == before


@given(VALUES, VALUES)
def test_a_patch_twice_is_a_patch(target: Json, patch: Json) -> None:
    once = merged(target, patch)
    assert merged(once, patch) == once


@given(VALUES)
def test_a_patch_without_null_replaces_what_it_names(value: Json) -> None:
    shown = store({"k": "old"})
    shown.patch({"k": value})
    assert isinstance(shown.value, dict)
    if value is None:
        assert shown.value == {}
    elif not isinstance(value, dict):
        assert shown.value == {"k": value}


def test_before_a_put_there_is_nothing_to_patch() -> None:
    empty = Store(LIMIT, dump)
    with pytest.raises(NotInitialized) as caught:
        empty.patch({"a": 1})
    assert str(caught.value) == "MMDS error: The MMDS data store is not initialized."
    assert caught.value.status == 400
    assert empty.value is None
    empty.put(None)
    empty.patch({"a": 1})
    assert empty.value == {"a": 1}


@given(st.integers(0, 40), st.text('aé\n"', max_size=20))
def test_the_limit_is_of_bytes_of_json(limit: int, text: str) -> None:
    size = len(dump({"k": text}).encode())
    small = store(None, max(limit, 4))
    if size > max(limit, 4):
        with pytest.raises(LimitExceeded) as caught:
            small.put({"k": text})
        assert caught.value.status == 413
        with pytest.raises(LimitExceeded):
            small.patch({"k": text})
        assert small.value is None
    else:
        small.put({"k": text})
        small.patch({"k": text})
        assert small.value == {"k": text}


def test_keys_are_sorted() -> None:
    shown = store({"b": [{"d": 1, "c": 2}], "a": 1})
    assert shown.json("") == '{"a":1,"b":[{"c":2,"d":1}]}'
    shown.patch({"B": 1})
    assert shown.json("/") == '{"B":1,"a":1,"b":[{"c":2,"d":1}]}'


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", "a/b/\nb/\nlist\nnull\nnumber\ntext"),
        ("/", "a/b/\nb/\nlist\nnull\nnumber\ntext"),
        ("/b", "\na\nz/"),
        ("/b/", "\na\nz/"),
        ("/b/z", ""),
        ("/b/a", "x"),
        ("/b/a/", "x"),
        ("/a~1b/~0", "tilde"),
        ("/a~1b/~01", "escaped"),
        ("/list/0", "zero"),
        ("/list/1/in", "side"),
        ("/text", "a\nb"),
    ],
)
def test_the_text_of_a_path(path: str, text: str) -> None:
    assert store(TREE).text(path) == text


@pytest.mark.parametrize("path", ["/number", "/list", "/null"])
def test_what_has_no_text(path: str) -> None:
    with pytest.raises(UnsupportedValue):
        store(TREE).text(path)
    assert store(TREE).json(path)
    with pytest.raises(UnsupportedValue):
        store().text("/")


@pytest.mark.parametrize(
    "path",
    [
        "b",
        "/c",
        "/b/a/x",
        "/list/2",
        "/list/01",
        "/list/+1",
        "/list/-1",
        "/list/x",
        "/list/99999999999999999999999",
        "/list/²",
        "/text/0",
        "//b",
    ],
)
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(NotFound):
        find(TREE, path)
    with pytest.raises(NotFound):
        store(TREE).json(path)
    with pytest.raises(NotFound):
        store().text(path)


def test_what_is_asked_again_is_not_written_again() -> None:
    written = list[Json]()

    def counting(value: Json) -> str:
        written.append(value)
        return dump(value)

    made = Store(LIMIT, counting)
    made.put({"a": {"b": 1}})
    written.clear()
    assert [made.json("/a") for _ in range(3)] == ['{"b":1}'] * 3
    assert made.json("") == '{"a":{"b":1}}'
    assert len(written) == 2
    made.patch({"a": {"b": 2}})
    assert made.json("") == '{"a":{"b":2}}'
