"""What a saved piece of state is: a frozen dataclass with a kind and a version.

A record stands at the foot of its device's file. Changing a field means a new
version, an upgrade and a golden file, in one commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, dataclass_transform

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecordKind:
    """The name and version that travel with a record's fields."""

    kind: str
    version: int


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(kind: str, version: int) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen, slotted, keyword-only record.

    Sets ``RECORD`` on the class, a :class:`RecordKind`. Fields are ints, bools,
    strings, bytes, None, and tuples or records of these.
    """

    def apply(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True, slots=True)(cls)
        made.RECORD = RecordKind(kind, version)  # type: ignore[attr-defined]
        return made

    return apply
