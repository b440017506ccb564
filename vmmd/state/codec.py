"""Records to plain maps and back: ``pack`` and ``unpack``.

A record's map has its fields in key order. A record inside another is a map too,
with its kind and version as ``"@": "kind/version"``, so that a file says what it
holds to readers who have no schema. What may stand in a field is read once from
the record's annotations; anything else is a SnapshotError that names the record
and the field.
"""

from __future__ import annotations

import sys
import typing
from itertools import chain
from operator import attrgetter, gt, itemgetter, lt
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass
from vmmd.state.fields import (
    INT_ONLY,
    MAX_DEPTH,
    FieldFault,
    Fixed,
    Integer,
    Many,
    Optional,
    PlainMap,
    Rows,
    Scalar,
    Sized,
    Text,
    type_name,
)
from vmmd.state.record import IntRange, Length, RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from vmmd.state.fields import Codec, Value

    Pick: TypeAlias = Callable[[Any], tuple[Any, ...]]

T = TypeVar("T")

TAG = "@"
"""The key of a nested record's kind and version; no field can be called so."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it stands in a file: fields not yet looked at.

    ``id`` tells apart records of one kind. ``fields`` is plain (integers,
    strings, bytes, booleans, None, tuples and maps of these), in key order.
    A reader who does not know the kind leaves out what is ``optional`` and
    refuses the rest.
    """

    kind: str
    id: str
    version: int
    fields: Mapping[str, Any]
    optional: bool = False


def pack(record: object, record_id: str = "") -> Entry:
    """The entry of a record, to be read back by :func:`unpack`.

    SnapshotError if a field holds what its annotation forbids.
    """
    kind = kind_of(type(record))
    try:
        fields = schema(type(record)).write_fields(record)
    except FieldFault as fault:
        raise SnapshotError(f"{named(kind.kind, record_id)}: {fault}") from fault
    return Entry(kind.kind, record_id, kind.version, fields)


def unpack(entry: Entry, cls: type[T]) -> T:
    """The record in an entry, which must be of the version that ``cls`` is.

    SnapshotError naming the record and the field.
    """
    kind, name = kind_of(cls), named(entry.kind, entry.id)
    if (entry.kind, entry.version) != (kind.kind, kind.version):
        wanted = f"not {kind.kind} version {kind.version}"
        raise SnapshotError(f"{name}: version {entry.version}, {wanted}")
    try:
        return typing.cast("T", schema(cls).read_fields(entry.fields))
    except FieldFault as fault:
        raise SnapshotError(f"{name}: {fault}") from fault
    except SnapshotError as error:
        raise SnapshotError(f"{name}: {error}") from error


_PLAIN = frozenset((int, str, bytes, bool, NoneType, tuple, dict))


def check_plain(entry: Entry) -> None:
    """SnapshotError for floats, times and what nests too deeply."""
    try:
        _check_levels(entry.fields)
    except FieldFault as fault:
        raise SnapshotError(f"{named(entry.kind, entry.id)}: {fault}") from fault


def _check_levels(fields: Mapping[str, Value]) -> None:
    maps: list[Mapping[str, Value]] = [fields]
    arrays: list[tuple[Value, ...]] = []
    for _ in range(MAX_DEPTH):
        level = list(chain(*[value.values() for value in maps], *arrays))
        types = set(map(type, level))
        if not _PLAIN.issuperset(types):
            raise FieldFault("holds a float or a time")
        if types.isdisjoint((dict, tuple)):
            return
        maps = [value for value in level if type(value) is dict]
        arrays = [value for value in level if type(value) is tuple]
    raise FieldFault(f"nests more than {MAX_DEPTH} deep")


def named(kind: str, record_id: str) -> str:
    """How messages name a record."""
    return f"{kind} {record_id}" if record_id else kind


def kind_of(cls: type) -> RecordKind:
    """Kind and version of a record class. TypeError for another class."""
    kind = getattr(cls, "RECORD", None)
    if not isinstance(kind, RecordKind):
        raise TypeError(f"{cls.__name__} is no record")
    return kind


def schema(cls: type) -> Schema:
    """What the fields of a dataclass may hold, from its annotations."""
    made = _SCHEMAS.get(cls)
    if made is None:
        made = _SCHEMAS[cls] = Schema(cls)
    return made


_SCHEMAS: dict[type, Schema] = {}


class Schema:
    """The fields of one class. Integers, the most of them, are judged together."""

    def __init__(self, cls: type) -> None:
        self._make = cls
        self.names = tuple(_fields_of(cls))
        self.codecs = {name: _codec_of(cls, name) for name in self.names}
        self._keys = set(self.names)
        self._tagged_keys = self._keys | {TAG}
        self._sorted = tuple(sorted(self.names))
        self._of_record = _pick(attrgetter, self._sorted)
        integers = {n: c for n, c in self.codecs.items() if isinstance(c, Integer)}
        self.inner = frozenset(
            cls for codec in self.codecs.values() for cls in _records_in(codec)
        )
        self._others = tuple(
            (n, c) for n, c in self.codecs.items() if n not in integers
        )
        self._integers = tuple(integers)
        self._pick_integers = _pick(itemgetter, self._integers)
        self._lows = tuple(codec.limits.low for codec in integers.values())
        self._highs = tuple(codec.limits.high for codec in integers.values())

    def write_fields(self, record: object) -> dict[str, Any]:
        """A record's fields as a plain map in key order. Raises FieldFault."""
        fields = dict(zip(self._sorted, self._of_record(record), strict=True))
        fit = self._fit(self._pick_integers(fields))
        for name, codec in self._others if fit else self.codecs.items():
            try:
                fields[name] = codec.write(fields[name])
            except FieldFault as fault:
                raise fault.inside(name) from None
        return fields

    def read_fields(self, fields: Mapping[str, Any], tag: str = "") -> Value:
        """The record. Raises FieldFault, or the record's own SnapshotError.

        With a ``tag``, the map must have it beside the fields.
        """
        if fields.keys() != (self._tagged_keys if tag else self._keys):
            _refuse_keys(self._tagged_keys if tag else self._keys, fields)
        if tag and fields[TAG] != tag:
            found = fields[TAG]  # perhaps nested so deeply that repr() gives up
            shown = repr(found) if type(found) is str else type_name(found)
            raise FieldFault(f"is {shown}, not {tag}")
        fit = self._fit(integers := self._pick_integers(fields))
        if fit and not self._others:
            return self._make(*integers)
        values = {name: fields[name] for name in self.names}
        for name, codec in self._others if fit else self.codecs.items():
            try:
                values[name] = codec.read(values[name])
            except FieldFault as fault:
                raise fault.inside(name) from None
        return self._make(*values.values())

    def _fit(self, values: tuple[Any, ...]) -> bool:
        """Whether every integer is one, in range; if not, a codec says which."""
        return (
            INT_ONLY.issuperset(map(type, values))
            and not any(map(lt, values, self._lows))
            and not any(map(gt, values, self._highs))
        )


def _fields_of(cls: type) -> Mapping[str, object]:
    fields: Mapping[str, object] = cls.__dataclass_fields__  # type: ignore[attr-defined]  # only dataclasses come here
    return fields


def _pick(getter: Callable[..., Any], names: tuple[str, ...]) -> Pick:
    """A getter that gives a tuple also of one name or of none."""
    if len(names) > 1:
        pick: Pick = getter(*names)
        return pick
    getters = [getter(name) for name in names]
    return lambda source: tuple(get(source) for get in getters)


def _refuse_keys(keys: set[str], fields: Mapping[str, Any]) -> NoReturn:
    missing = sorted(keys - fields.keys())
    if missing:
        raise FieldFault("is missing", missing[0])
    raise FieldFault("is not known", min(fields.keys() - keys))


def _records_in(codec: Codec) -> Iterator[type]:
    match codec:
        case Nested():
            yield codec.type
        case Fixed():
            for item in codec.inner:
                yield from _records_in(item)
        case Many() | Optional() | Sized():
            yield from _records_in(codec.inner)


class Nested:
    """A record inside a record."""

    def __init__(self, cls: type) -> None:
        kind = kind_of(cls)
        self.type = cls
        self._schema = schema(cls)
        self._tag = f"{kind.kind}/{kind.version}"

    def write(self, value: Value) -> dict[str, Any]:
        """Its fields as a map, and its kind and version."""
        if type(value) is not self.type:
            raise FieldFault(f"is {type_name(value)}, not {self._tag}")
        return {TAG: self._tag, **self._schema.write_fields(value)}

    def read(self, value: Value) -> Value:
        """The record."""
        if type(value) is not dict:
            raise FieldFault(f"is {type_name(value)}, not {self._tag}")
        return self._schema.read_fields(value, self._tag)


_U64 = IntRange(0, (1 << 64) - 1)
_CODECS: dict[object, Codec] = {
    int: Integer(_U64),
    bool: Scalar(bool),
    str: Text(),
    bytes: Scalar(bytes),
    dict[str, Any]: PlainMap(),
}
_WORDS: dict[str, Codec] = {
    **{kind.__name__: _CODECS[kind] for kind in (int, bool, str, bytes)},
    **{f"U{n}": Integer(IntRange(0, (1 << n) - 1)) for n in (8, 16, 32, 64)},
}


def _codec_of(cls: type, name: str) -> Codec:
    """A field's codec. Most annotations are a word that needs no evaluation."""
    text = cls.__annotations__[name]
    if text not in _WORDS:
        return _codec(eval(text, vars(sys.modules[cls.__module__])))
    return _WORDS[text]


def _codec(hint: Value) -> Codec:
    """What an annotation says. TypeError if no field can be of that type."""
    if hint in _CODECS:
        return _CODECS[hint]
    origin: object = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1])
    if origin in (typing.Union, UnionType) and arguments[1:] == (NoneType,):
        return Optional(_codec(arguments[0]))
    if origin is tuple and arguments[1:] == (...,):
        inner = _codec(arguments[0])
        return _table(inner) if isinstance(inner, Fixed) else Many(inner)
    if origin is tuple:
        return Fixed(tuple(map(_codec, arguments)))
    return Nested(hint)


def _annotated(hint: Value, limits: IntRange | Length) -> Codec:
    if isinstance(limits, IntRange):
        return Integer(limits)
    return Sized(_codec(hint), limits)


def _table(row: Fixed) -> Codec:
    columns = tuple(codec for codec in row.inner if isinstance(codec, Integer))
    return Rows(columns) if len(columns) == len(row.inner) else Many(row)
