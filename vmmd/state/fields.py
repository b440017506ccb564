"""What one field of a record may hold, and its plain form.

A codec's ``write`` gives the plain form of a value, ``read`` the value of a plain
form; both raise FieldFault for what cannot be. Long runs of integers are judged
in C, and looked at one by one only to say which is wrong.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from vmmd.state.record import IntRange, Length

    class Codec(Protocol):
        """One type of field."""

        def write(self, value: Value) -> Value:
            """The plain form of a field's value."""

        def read(self, value: Value) -> Value:
            """The field's value from its plain form."""


Value: TypeAlias = Any
"""What stands in a record or in its plain form."""

MAX_TEXT = 0x1_0000
"""Bytes of a string."""
MAX_ITEMS = 0x1_0000
"""Items of an array, or keys of a map."""
MAX_DEPTH = 16
"""Maps and arrays inside each other, the outermost counted."""


INT_ONLY = frozenset((int,))
_TUPLE_ONLY = frozenset((tuple,))


class FieldFault(Exception):
    """A value that cannot stand where it does. ``str()`` is path and reason."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def inside(self, name: str) -> FieldFault:
        """The same, seen from around ``name``."""
        dot = "." if self.path and not self.path.startswith("[") else ""
        return FieldFault(self.reason, name + dot + self.path)


class Integer:
    """An integer in a range."""

    def __init__(self, limits: IntRange) -> None:
        self.limits = limits

    def write(self, value: Value) -> int:
        """Members of an IntEnum become what they stand for."""
        if isinstance(value, int) and not isinstance(value, bool):
            return self.read(int(value))
        return self.read(value)

    def read(self, value: Value) -> int:
        """The value itself."""
        if type(value) is not int:
            raise FieldFault(f"is {type_name(value)}, not an integer")
        if not self.limits.low <= value <= self.limits.high:
            raise FieldFault(f"{value} is out of range")
        return value


class Scalar:
    """A boolean or bytes: its own plain form."""

    def __init__(self, kind: type) -> None:
        self._type = kind

    def write(self, value: Value) -> Value:
        """The value itself."""
        return self.read(value)

    def read(self, value: Value) -> Value:
        """The value itself."""
        if type(value) is not self._type:
            raise FieldFault(f"is {type_name(value)}, not {_NAMES[self._type]}")
        return value


class Text:
    """A string of Unicode: its own plain form."""

    def write(self, value: Value) -> str:
        """Members of a StrEnum become what they stand for."""
        text = str(value) if isinstance(value, str) else self.read(value)
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise FieldFault("is not Unicode") from None
        if size > MAX_TEXT:
            raise FieldFault(f"has {size} bytes, at most {MAX_TEXT}")
        return text

    def read(self, value: Value) -> str:
        """The value itself."""
        if type(value) is not str:
            raise FieldFault(f"is {type_name(value)}, not a string")
        return value


class Sized:
    """Bytes or an array of a length that is known."""

    def __init__(self, inner: Codec, limits: Length) -> None:
        self.inner = inner
        self._limits = limits

    def write(self, value: Value) -> Value:
        """What the codec inside says."""
        return self.inner.write(self._judged(value))

    def read(self, value: Value) -> Value:
        """What the codec inside says."""
        return self.inner.read(self._judged(value))

    def _judged(self, value: Value) -> Value:
        if type(value) in (bytes, tuple):
            low, high = self._limits.low, self._limits.high
            if not low <= len(value) <= high:
                wanted = f"{low}" if low == high else f"{low} to {high}"
                raise FieldFault(f"has {len(value)} items, not {wanted}")
        return value


class Optional:
    """None, or what the codec inside says."""

    def __init__(self, inner: Codec) -> None:
        self.inner = inner

    def write(self, value: Value) -> Value:
        """None stays None."""
        return None if value is None else self.inner.write(value)

    def read(self, value: Value) -> Value:
        """None stays None."""
        return None if value is None else self.inner.read(value)


class Many:
    """Any number of values of one type: ``tuple[X, ...]``."""

    def __init__(self, inner: Codec) -> None:
        self.inner = inner

    def write(self, value: Value) -> Value:
        """A tuple of plain forms."""
        return self._each(self.inner.write, value)

    def read(self, value: Value) -> Value:
        """A tuple of values."""
        return self._each(self.inner.read, value)

    def _each(self, convert: Callable[[Value], Value], value: Value) -> Value:
        _check_array(value)
        done: list[Value] = []
        try:
            done.extend(map(convert, value))
        except FieldFault as fault:
            raise fault.inside(f"[{len(done)}]") from None
        return tuple(done)


class Fixed:
    """A tuple with a type for each place: ``tuple[X, Y]``."""

    def __init__(self, inner: tuple[Codec, ...]) -> None:
        self.inner = inner

    def write(self, value: Value) -> Value:
        """A tuple of plain forms."""
        return self._each([codec.write for codec in self.inner], value)

    def read(self, value: Value) -> Value:
        """A tuple of values."""
        return self._each([codec.read for codec in self.inner], value)

    def _each(self, converts: list[Callable[[Value], Value]], value: Value) -> Value:
        _check_array(value)
        if len(value) != len(converts):
            raise FieldFault(f"has {len(value)} items, not {len(converts)}")
        done: list[Value] = []
        try:
            done.extend(convert(v) for convert, v in zip(converts, value, strict=True))
        except FieldFault as fault:
            raise fault.inside(f"[{len(done)}]") from None
        return tuple(done)


class Rows:
    """A table of integers, ``tuple[tuple[U32, U64], ...]``, by columns: it is long."""

    def __init__(self, columns: tuple[Integer, ...]) -> None:
        self._columns = columns
        self._slow = Many(Fixed(columns))

    def write(self, value: Value) -> Value:
        """The table itself."""
        return value if self._fit(value) else self._slow.write(value)

    def read(self, value: Value) -> Value:
        """The table itself."""
        return value if self._fit(value) else self._slow.read(value)

    def _fit(self, table: Value) -> bool:
        if type(table) is not tuple or not 0 < len(table) <= MAX_ITEMS:
            return False
        if not _TUPLE_ONLY.issuperset(map(type, table)):
            return False
        if set(map(len, table)) != {len(self._columns)}:
            return False
        columns = zip(self._columns, zip(*table, strict=True), strict=True)
        return all(_column_fits(limits, values) for limits, values in columns)


def _column_fits(column: Integer, values: tuple[Value, ...]) -> bool:
    return (
        INT_ONLY.issuperset(map(type, values))
        and min(values) >= column.limits.low
        and max(values) <= column.limits.high
    )


class PlainMap:
    """A map that somebody else reads."""

    def write(self, value: Value) -> Value:
        """The map itself."""
        return self.read(value)

    def read(self, value: Value) -> Value:
        """The map itself."""
        if type(value) is not dict:
            raise FieldFault(f"is {type_name(value)}, not a map")
        return value


def _check_array(value: Value) -> None:
    if type(value) is not tuple:
        raise FieldFault(f"is {type_name(value)}, not an array")
    if len(value) > MAX_ITEMS:
        raise FieldFault(f"has {len(value)} items, at most {MAX_ITEMS}")


def type_name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)


_NAMES: dict[type, str] = {
    int: "an integer",
    bool: "a boolean",
    str: "a string",
    bytes: "bytes",
    tuple: "an array",
    dict: "a map",
    float: "a float",
    NoneType: "nothing",
}
