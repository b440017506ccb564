"""The quick matching of trees."""

from __future__ import annotations

import pytest

from vmmd.config import CacheType
from vmmd.http.shapes import (
    Any,
    Bool,
    Enum,
    Field,
    Int,
    Mismatch,
    Option,
    Seq,
    Shape,
    Struct,
    Text,
    Untagged,
)

PAIR = Struct(
    "Pair", lambda *values: values, (Field("a", Int("u8", 8)), Field("b", Bool(), True))
)
LOOSE = Struct("Loose", lambda *values: values, (Field("a", Option(Text())),), False)
HIDDEN = Struct(
    "Hidden",
    lambda *values: values,
    (Field("a", Bool()), Field("h", Option(Bool()), listed=False)),
)


@pytest.mark.parametrize(
    ("shape", "tree", "value"),
    [
        (Bool(), True, True),
        (Int("u8", 8), 255, 255),
        (Text(), "é", "é"),
        (Text(convert=len), "abc", 3),
        (Enum(CacheType), "Unsafe", CacheType.UNSAFE),
        (Option(Bool()), None, None),
        (Option(Bool()), False, False),
        (Seq(Bool()), [True, False], (True, False)),
        (PAIR, (("b", False), ("a", 1)), (1, False)),
        (PAIR, (("a", 1),), (1, True)),
        (PAIR, [1, False], (1, False)),
        (PAIR, [1], (1, True)),
        (LOOSE, (("x", None), ("x", 1)), (None,)),
        (LOOSE, (("x", 0), ("a", "b")), ("b",)),
        (HIDDEN, (("a", True), ("h", False)), (True, False)),
        (HIDDEN, [True], (True, None)),
        (Untagged("U", (Text(), PAIR)), "a", "a"),
        (Untagged("U", (Text(), PAIR)), (("a", 1),), (1, True)),
        (Any(), (("a", [1, ()]), ("a", None)), {"a": None}),
    ],
)
def test_matches(shape: Shape, tree: object, value: object) -> None:
    assert shape.match(tree) == value


@pytest.mark.parametrize(
    ("shape", "tree"),
    [
        (Bool(), 1),
        (Bool(), None),
        (Int("u8", 8), True),
        (Int("u8", 8), 256),
        (Int("u8", 8), -1),
        (Int("u8", 8), 1.0),
        (Text(), 5),
        (Text(convert=int), "x"),
        (Enum(CacheType), "unsafe"),
        (Enum(CacheType), (("Unsafe", None),)),
        (Seq(Bool()), "ab"),
        (Seq(Bool()), [1]),
        (Seq(Bool()), ()),
        (PAIR, ()),
        (PAIR, (("a", 1), ("a", 1))),
        (PAIR, (("a", 1), ("c", 1))),
        (PAIR, [1, True, 2]),
        (PAIR, []),
        (PAIR, "a"),
        (LOOSE, (("a", "b"), ("a", "b"))),
        (LOOSE, []),
        (HIDDEN, [True, False]),
        (Untagged("U", (Bool(), Text())), 1),
        (Any(), 1 << 64),
        (Any(), -(1 << 63) - 1),
    ],
)
def test_mismatches(shape: Shape, tree: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any kind of it will do
        shape.match(tree)


def test_depth_of_any() -> None:
    tree: object = []
    for _ in range(126):
        tree = [tree]
    assert Any().match(tree) == tree
    with pytest.raises(Mismatch):
        Any().match([tree])
