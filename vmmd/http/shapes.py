"""Shapes of JSON: what a value must be, and what comes of it.

One table per object of the API is built of these (:mod:`vmmd.http.objects`).
Both readers of :mod:`vmmd.http.serde` are driven by the same tables. ``match``
is the quick one's: it takes a tree of Python values and says Mismatch to
whatever it does not know for certain to be right; the exact reader decides then.

In a tree an object is a tuple of (key, value) pairs and an array is a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

DEPTH_LIMIT = 128
_I64_MIN = -(1 << 63)
_U64_END = 1 << 64


class Mismatch(ValueError):
    """A tree is not, or not certainly, of a shape."""


@dataclass(frozen=True, slots=True)
class Required:
    """Stands as the default of a field that has none."""


REQUIRED = Required()


@dataclass(frozen=True, slots=True)
class Bool:
    """true or false."""

    def match(self, tree: object) -> bool:
        """The value of a tree, or Mismatch."""
        if isinstance(tree, bool):
            return tree
        raise Mismatch


@dataclass(frozen=True, slots=True)
class Int:
    """An unsigned integer; ``name`` is Rust's name of the type."""

    name: str
    bits: int

    def match(self, tree: object) -> int:
        """The value of a tree, or Mismatch."""
        if type(tree) is int and 0 <= tree < 1 << self.bits:
            return tree
        raise Mismatch


@dataclass(frozen=True, slots=True)
class Text:
    """A string, perhaps of a syntax of its own.

    ``convert`` makes the value of it or raises ValueError with the fault's text.
    ``inside``: whether serde has the conversion in the string's visitor, so that
    the fault is placed at the string's end, or behind it, so that it is placed
    where the object or array around it ends.
    """

    expecting: str = "a string"
    convert: Callable[[str], object] | None = None
    inside: bool = False

    def match(self, tree: object) -> object:
        """The value of a tree, or a ValueError."""
        if not isinstance(tree, str):
            raise Mismatch
        return tree if self.convert is None else self.convert(tree)


@dataclass(frozen=True, slots=True)
class Enum:
    """One of some names; as with serde also ``{"Name": null}``."""

    kind: type[StrEnum]

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order of declaration."""
        return tuple(self.kind)

    def match(self, tree: object) -> StrEnum:
        """The value of a tree, or a ValueError."""
        if isinstance(tree, str):
            return self.kind(tree)
        raise Mismatch


@dataclass(frozen=True, slots=True)
class Option:
    """A value or null; as a field it may be absent too."""

    inner: Shape

    def match(self, tree: object) -> object:
        """The value of a tree, or a ValueError."""
        return None if tree is None else self.inner.match(tree)


@dataclass(frozen=True, slots=True)
class Seq:
    """An array of one shape; comes out as a tuple."""

    inner: Shape

    def match(self, tree: object) -> tuple[object, ...]:
        """The value of a tree, or a ValueError."""
        if not isinstance(tree, list):
            raise Mismatch
        return tuple(self.inner.match(item) for item in tree)


@dataclass(frozen=True, slots=True)
class Any:
    """Any JSON: dicts, lists, str, int, float, bool, None."""

    def match(self, tree: object) -> object:
        """The value of a tree, or Mismatch where it is nested too deep."""
        return plain(tree, DEPTH_LIMIT)


@dataclass(frozen=True, slots=True)
class Untagged:
    """The first of some shapes that fits; ``name`` is the Rust enum's."""

    name: str
    options: tuple[Shape, ...]

    def match(self, tree: object) -> object:
        """The value of a tree, or Mismatch."""
        for option in self.options:
            try:
                return option.match(tree)
            except ValueError:
                continue
        raise Mismatch


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct.

    ``default`` is for ``#[serde(default)]``; a field of an Option shape without
    one may be absent from an object but not from an array. ``listed``: whether
    the texts of unknown fields name it, and arrays have a place for it.
    """

    name: str
    shape: Shape
    default: object = REQUIRED
    listed: bool = True

    def absent(self) -> object:
        """The value where an object has no such key, or REQUIRED."""
        if self.default is REQUIRED and isinstance(self.shape, Option):
            return None
        return self.default


@dataclass(frozen=True, slots=True)
class Struct:
    """An object of known fields; as with serde also an array in their order.

    ``make`` is called with one value per field. ``strict``: unknown fields are
    refused, else skipped.
    """

    name: str
    make: Callable[..., object]
    fields: tuple[Field, ...]
    strict: bool = True

    @property
    def listed(self) -> tuple[Field, ...]:
        """The fields that texts name."""
        return tuple(field for field in self.fields if field.listed)

    def match(self, tree: object) -> object:
        """The value of a tree, or a ValueError."""
        if isinstance(tree, list):
            return self._match_array(tree)
        if not isinstance(tree, tuple):
            raise Mismatch
        given = dict(tree)
        known = [field.name for field in self.fields if field.name in given]
        # Equal counts: no key is unknown and none came twice.
        if len(known) != len(tree) and (self.strict or _twice(tree, known)):
            raise Mismatch
        return self.make(*(_of_key(field, given) for field in self.fields))

    def _match_array(self, items: list[object]) -> object:
        if len(items) > len(self.listed):
            raise Mismatch
        values = [
            field.shape.match(items[place]) if place < len(items) else field.default
            for place, field in enumerate(self.listed)
        ]
        if REQUIRED in values:
            raise Mismatch
        return self.make(*values, *(f.absent() for f in self.fields if not f.listed))


Shape: TypeAlias = Bool | Int | Text | Enum | Option | Seq | Any | Untagged | Struct


def _of_key(field: Field, given: dict[str, object]) -> object:
    if field.name in given:
        return field.shape.match(given[field.name])
    value = field.absent()
    if value is REQUIRED:
        raise Mismatch
    return value


def _twice(pairs: tuple[tuple[str, object], ...], known: list[str]) -> bool:
    return sum(key in known for key, _ in pairs) != len(known)


def plain(tree: object, depth: int) -> object:
    """A tree as dicts and lists, the last of equal keys winning.

    Mismatch where arrays and objects are nested ``depth`` deep, or an integer
    fits neither i64 nor u64.
    """
    if isinstance(tree, (tuple, list)):
        if depth == 1:
            raise Mismatch
        if isinstance(tree, list):
            return [plain(item, depth - 1) for item in tree]
        return {key: plain(value, depth - 1) for key, value in tree}
    if type(tree) is int and not _I64_MIN <= tree < _U64_END:
        raise Mismatch
    return tree
