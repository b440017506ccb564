"""Between a record of integers and the kernel's struct of the same fields."""

from __future__ import annotations

import struct
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def field_values(item: DataclassInstance) -> tuple[Any, ...]:
    """The fields' values in their order, which is the struct's."""
    return _getter(type(item))(item)


@cache
def _getter(cls: type[DataclassInstance]) -> Callable[[object], tuple[Any, ...]]:
    """What reads all fields of a record in one go."""
    names = tuple(cls.__dataclass_fields__)
    if len(names) == 1:
        return lambda item: (getattr(item, names[0]),)
    return attrgetter(*names)


def pack(layout: struct.Struct, item: DataclassInstance) -> bytes:
    """The struct's bytes. ValueError names record and field that do not fit."""
    values = field_values(item)
    try:
        return layout.pack(*values)
    except struct.error as error:
        name = f"{type(item).__name__}{_misfit(layout, item)}"
        raise ValueError(f"{name}: {error}") from error


def _misfit(layout: struct.Struct, item: DataclassInstance) -> str:
    """``.field`` of the first field that does not fit its place."""
    names = tuple(item.__dataclass_fields__)
    fitting = [value * 0 for value in field_values(item)]
    for i, name in enumerate(names):
        try:
            layout.pack(*fitting[:i], getattr(item, name), *fitting[i + 1 :])
        except struct.error:
            return f".{name}"
    return ""


def pack_values(layout: struct.Struct, values: Sequence[int], name: str) -> bytes:
    """``layout.pack`` with a ValueError that says whose values they are."""
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ValueError(f"{name}: {error}") from error


def unpack(layout: struct.Struct, cls: type[T], raw: bytes) -> T:
    """A record of ``cls`` from the struct's bytes. ValueError if the size is wrong."""
    return cls(*unpack_values(layout, raw, cls.__name__))


def unpack_all(layout: struct.Struct, cls: type[T], raw: bytes) -> tuple[T, ...]:
    """Records of ``cls`` from structs end to end. struct.error if one is cut off."""
    return tuple([cls(*values) for values in layout.iter_unpack(raw)])


def unpack_values(layout: struct.Struct, raw: bytes, name: str) -> tuple[Any, ...]:
    """``layout.unpack`` with a ValueError that says what has the wrong size."""
    check_size(raw, layout.size, name)
    return layout.unpack(raw)


def check_size(raw: bytes, size: int, name: str) -> None:
    """ValueError unless ``raw`` has ``size`` bytes."""
    if len(raw) != size:
        raise ValueError(f"{name} has {size} bytes, not {len(raw)}")
