"""What a saved piece of state is: a frozen dataclass with a kind and a version.

A record stands at the foot of its device's file. Changing a field means a new
version, an upgrade from the one before, a downgrade to it, a line in
``state/versions.py`` and a golden file, in one commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar, dataclass_transform

from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IntRange:
    """The integers that a field may hold, both ends included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Length:
    """How many bytes or items a field may have, both ends included."""

    low: int
    high: int


U8 = Annotated[int, IntRange(0, 0xFF)]
U16 = Annotated[int, IntRange(0, 0xFFFF)]
U32 = Annotated[int, IntRange(0, 0xFFFF_FFFF)]
U64 = Annotated[int, IntRange(0, 0xFFFF_FFFF_FFFF_FFFF)]
I64 = Annotated[int, IntRange(-(1 << 63), (1 << 63) - 1)]


@dataclass(frozen=True, slots=True)
class RecordKind:
    """The name and version that travel with a record's fields."""

    kind: str
    version: int


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(kind: str, version: int) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen, slotted, keyword-only record.

    Sets ``RECORD`` on the class, a :class:`RecordKind`. Fields are ints (U64 if
    nothing narrower is said), bools, strings, bytes, None, and tuples or records
    of these. What the types cannot say is for ``__post_init__`` to refuse, with
    a SnapshotError.
    """

    def apply(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True, slots=True)(cls)
        made.RECORD = RecordKind(kind, version)  # type: ignore[attr-defined]
        return made

    return apply


# Translation: fields of one version to those of the next or the one before.

Fields: TypeAlias = "Mapping[str, Any]"
"""A record as a plain map; records inside it are maps of their newest version."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What an older version cannot hold. ``text`` is for the log."""

    fields: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Refusal(Loss):
    """A loss that nobody may take: nothing is saved for that version.

    ``layer`` is what Firecracker's layers put before its text.
    """

    layer: str = ""


SERIALIZATION = "A serialization error occured: "
SEMANTIC = "A user generated semantic error occured: "
NOTIFICATION_SUPPRESSION = (
    "The virtio devices use a features that is incompatible with older versions of"
    " Firecracker: notification suppression"
)

Notes: TypeAlias = "tuple[str, ...]"
"""Lines for the log: what an older file does not say."""
Upgrade: TypeAlias = "Callable[[Fields], tuple[Fields, Notes]]"
Downgrade: TypeAlias = "Callable[[Fields], tuple[Fields | None, tuple[Loss, ...]]]"


def upgrade(cls: type, version: int) -> Callable[[Upgrade], Upgrade]:
    """Mark the function that takes ``cls`` from ``version`` to the next one.

    It gets fields that say they are that version's (a file may lie: what it
    returns is judged) and returns the next one's, and what to log.
    """
    return _translation(cls, "UPGRADES", version)


def downgrade(cls: type, version: int) -> Callable[[Downgrade], Downgrade]:
    """Mark the function that takes ``cls`` from ``version`` to the one before.

    It returns the fields and what they have lost. From version 1 it goes to a
    release that does not know the kind, and may return None: no record. Without
    a function for that, such a record is kept and marked optional.
    """
    return _translation(cls, "DOWNGRADES", version)


def with_fields(fields: Fields, new: Fields) -> Fields:
    """``fields`` and those that are new. SnapshotError if one is there already."""
    clash = fields.keys() & new.keys()
    if clash:
        raise SnapshotError(f"{min(clash)}: is not known")
    return {**fields, **new}


def without(fields: Fields, *names: str) -> Fields:
    """``fields`` but those named."""
    return {name: fields[name] for name in fields if name not in names}


def _translation(cls: type, table: str, version: int) -> Callable[[T], T]:
    def mark(function: T) -> T:
        if table not in vars(cls):
            setattr(cls, table, {})
        vars(cls)[table][version] = function
        return function

    return mark
