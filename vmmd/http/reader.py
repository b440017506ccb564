"""The exact reader: a document and a shape -> a value, or serde_json's fault.

Each method is one of serde_json's ``deserialize_*`` with the visitor that serde
derives. Two habits of theirs show in the columns and are kept: a fault without
a place gets the place where the innermost array or object around it stops being
read, and its closing bracket counts as read if it comes next.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from vmmd.rust import debug_str

from .numbers import Number, read_number, show_number
from .scanner import EOF_OBJECT, EXPECTED_VALUE, Scanner, SerdeFault
from .shapes import (
    DEPTH_LIMIT,
    REQUIRED,
    Any,
    Bool,
    Enum,
    Field,
    Int,
    Option,
    Seq,
    Shape,
    Struct,
    Text,
    Untagged,
    plain,
)
from .skip import skip_value

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CONSTANTS = {
    ord("n"): (b"ull", "null", None),
    ord("t"): (b"rue", "boolean `true`", True),
    ord("f"): (b"alse", "boolean `false`", False),
}
_DIGITS = b"0123456789"


def read(shape: Shape, body: bytes) -> object:
    """The value of a whole document. Raises SerdeFault."""
    reader = Reader(body)
    value = reader.value(shape)
    reader.scan.end()
    return value


def one_of(names: tuple[str, ...]) -> str:
    """How serde lists what it expected."""
    match [f"`{name}`" for name in names]:
        case []:
            return "there are no fields"
        case [one]:
            return f"expected {one}"
        case [one, two]:
            return f"expected {one} or {two}"
        case several:
            return f"expected one of {', '.join(several)}"


class Reader:
    """Reads values of shapes off a scanner."""

    def __init__(self, body: bytes) -> None:
        self.scan = Scanner(body)

    def value(self, shape: Shape) -> object:
        """Read one value."""
        match shape:
            case Option(inner):
                return self._option(inner)
            case Struct():
                return self._struct(shape)
            case Seq(inner):
                return self._seq(inner)
            case Any():
                return plain(self._tree(), DEPTH_LIMIT)
            case Untagged():
                return self._untagged(shape)
            case _:
                return self._scalar(shape)

    def _scalar(self, shape: Bool | Int | Text | Enum) -> object:
        match shape:
            case Bool():
                return self._bool()
            case Int():
                return self._int(shape)
            case Text():
                return self._text(shape)
            case Enum():
                return self._enum(shape)

    # -- scalars

    def _bool(self) -> bool:
        byte = self.scan.value_ahead()
        if byte not in (ord("t"), ord("f")):
            raise self._wrong_type("a boolean")
        self.scan.index += 1
        self.scan.ident(_CONSTANTS[byte][0])
        return byte == ord("t")

    def _int(self, shape: Int) -> int:
        byte = self.scan.value_ahead()
        if byte != ord("-") and byte not in _DIGITS:
            raise self._wrong_type(shape.name)
        number = self._number()
        if isinstance(number, float):
            unexpected = show_number(number)
            raise self.scan.fault(f"invalid type: {unexpected}, expected {shape.name}")
        if not 0 <= number < 1 << shape.bits:
            text = f"invalid value: integer `{number}`, expected {shape.name}"
            raise self.scan.fault(text)
        return number

    def _number(self) -> Number:
        negative = self.scan.peek() == ord("-")
        self.scan.index += negative
        return read_number(self.scan, not negative)

    def _text(self, shape: Text) -> object:
        if self.scan.value_ahead() != ord('"'):
            raise self._wrong_type(shape.expecting)
        self.scan.index += 1
        text = self.scan.string()
        if shape.convert is None:
            return text
        try:
            return shape.convert(text)
        except ValueError as error:
            if shape.inside:
                raise self.scan.fault(str(error)) from None
            raise SerdeFault(str(error)) from None

    def _enum(self, shape: Enum) -> object:
        byte = self.scan.value_ahead()
        if byte == ord('"'):
            return self._variant(shape)
        if byte != ord("{"):
            raise self.scan.peek_fault(EXPECTED_VALUE)
        self.scan.enter()
        value = self._variant_object(shape)
        self.scan.depth += 1
        byte_after = self.scan.space()
        if byte_after != ord("}"):
            end = byte_after is None
            raise self.scan.fault(EOF_OBJECT if end else EXPECTED_VALUE)
        self.scan.index += 1
        return value

    def _variant_object(self, shape: Enum) -> object:
        if self.scan.value_ahead() != ord('"'):
            raise self._wrong_type("variant identifier")
        value = self._variant(shape)
        self.scan.colon()
        if self.scan.value_ahead() != ord("n"):
            raise self._wrong_type("unit")
        self.scan.index += 1
        self.scan.ident(b"ull")
        return value

    def _variant(self, shape: Enum) -> object:
        self.scan.index += 1
        name = self.scan.string()
        if name not in shape.names:
            names = one_of(shape.names)
            raise self.scan.fault(f"unknown variant `{name}`, {names}")
        return shape.kind(name)

    def _wrong_type(self, expected: str) -> SerdeFault:
        """The fault of a value of another type, which is read for the text."""
        scan = self.scan
        byte = scan.peek()
        if byte in _CONSTANTS:
            rest, unexpected, _ = _CONSTANTS[byte]
            scan.index += 1
            scan.ident(rest)
        elif byte == ord('"'):
            scan.index += 1
            unexpected = f"string {debug_str(scan.string())}"
        elif byte == ord("["):
            unexpected = "sequence"
        elif byte == ord("{"):
            unexpected = "map"
        elif byte == ord("-") or (byte is not None and byte in _DIGITS):
            unexpected = show_number(self._number())
        else:
            return scan.peek_fault(EXPECTED_VALUE)
        return scan.fault(f"invalid type: {unexpected}, expected {expected}")

    # -- what holds other values

    def _option(self, inner: Shape) -> object:
        if self.scan.space() != ord("n"):
            return self.value(inner)
        self.scan.index += 1
        self.scan.ident(b"ull")
        return None

    def _seq(self, inner: Shape) -> object:
        if self.scan.value_ahead() != ord("["):
            raise self._wrong_type("a sequence")
        return self._inside(lambda: self._items(inner), self.scan.end_seq)

    def _items(self, inner: Shape) -> tuple[object, ...]:
        items: list[object] = []
        while self.scan.first_or_comma(not items):
            items.append(self.value(inner))
        return tuple(items)

    def _inside(self, content: Callable[[], T], close: Callable[[], None]) -> T:
        """Read what a bracket holds, and the bracket that closes it."""
        scan = self.scan
        scan.enter()
        try:
            value = content()
        except SerdeFault as fault:
            if fault.place is None:
                raise SerdeFault(fault.reason, self._closed(close)) from None
            raise
        scan.depth += 1
        close()
        return value

    def _closed(self, close: Callable[[], None]) -> tuple[int, int]:
        # The first fault counts; reading on only moves its place.
        with suppress(SerdeFault):
            close()
        return self.scan.place_of(self.scan.index)

    def _struct(self, shape: Struct) -> object:
        byte = self.scan.value_ahead()
        if byte == ord("{"):
            return self._inside(lambda: self._fields(shape), self.scan.end_map)
        if byte == ord("["):
            return self._inside(lambda: self._elements(shape), self.scan.end_seq)
        raise self._wrong_type(f"struct {shape.name}")

    def _fields(self, shape: Struct) -> object:
        table = {field.name: field for field in shape.fields}
        values: dict[str, object] = {}
        first = True
        while self.scan.key_ahead(first):
            first = False
            self.scan.index += 1
            key = self.scan.string()
            if key not in table:
                self._unknown(shape, key)
                continue
            if key in values:
                raise SerdeFault(f"duplicate field `{key}`")
            self.scan.colon()
            values[key] = self.value(table[key].shape)
        return shape.make(*(_given(field, values) for field in shape.fields))

    def _unknown(self, shape: Struct, key: str) -> None:
        if shape.strict:
            names = one_of(tuple(field.name for field in shape.listed))
            raise SerdeFault(f"unknown field `{key}`, {names}")
        self.scan.colon()
        skip_value(self.scan)

    def _elements(self, shape: Struct) -> object:
        values: list[object] = []
        for place, field in enumerate(shape.listed):
            if self.scan.first_or_comma(not place):
                values.append(self.value(field.shape))
            elif field.default is not REQUIRED:
                values.append(field.default)
            else:
                count = len(shape.listed)
                plural = "" if count == 1 else "s"
                raise SerdeFault(
                    f"invalid length {place}, expected struct {shape.name} with"
                    f" {count} element{plural}"
                )
        hidden = (field.absent() for field in shape.fields if not field.listed)
        return shape.make(*values, *hidden)

    def _untagged(self, shape: Untagged) -> object:
        tree = self._tree()
        try:
            return shape.match(tree)
        except ValueError:
            text = f"data did not match any variant of untagged enum {shape.name}"
            raise SerdeFault(text) from None

    # -- any value

    def _tree(self) -> object:
        """Read any value as a tree (see :mod:`.shapes`)."""
        byte = self.scan.value_ahead()
        if byte in _CONSTANTS:
            rest, _, constant = _CONSTANTS[byte]
            self.scan.index += 1
            self.scan.ident(rest)
            return constant
        if byte == ord('"'):
            self.scan.index += 1
            return self.scan.string()
        if byte == ord("["):
            return self._inside(self._tree_items, self.scan.end_seq)
        if byte == ord("{"):
            return self._inside(self._tree_pairs, self.scan.end_map)
        if byte == ord("-") or byte in _DIGITS:
            return self._number()
        raise self.scan.peek_fault(EXPECTED_VALUE)

    def _tree_items(self) -> list[object]:
        items: list[object] = []
        while self.scan.first_or_comma(not items):
            items.append(self._tree())
        return items

    def _tree_pairs(self) -> tuple[tuple[str, object], ...]:
        pairs: list[tuple[str, object]] = []
        while self.scan.key_ahead(not pairs):
            self.scan.index += 1
            key = self.scan.string()
            self.scan.colon()
            pairs.append((key, self._tree()))
        return tuple(pairs)


def _given(field: Field, values: dict[str, object]) -> object:
    if field.name in values:
        return values[field.name]
    value = field.absent()
    if value is REQUIRED:
        raise SerdeFault(f"missing field `{field.name}`")
    return value
