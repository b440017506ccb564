"""A JSON reader that keeps its place and faults as serde_json does.

Follows serde_json 1.0.149 reading from a slice: the same fault, first in document
order, at the same line and column. A column is the number of bytes of its line
that were read, plus one where serde "peeks". Knows nothing of shapes.
"""

from __future__ import annotations

from vmmd.rust import debug_str

from .shapes import DEPTH_LIMIT

_WHITESPACE = b" \n\t\r"
_ESCAPES = {
    ord('"'): b'"',
    ord("\\"): b"\\",
    ord("/"): b"/",
    ord("b"): b"\b",
    ord("f"): b"\f",
    ord("n"): b"\n",
    ord("r"): b"\r",
    ord("t"): b"\t",
}
_HEX = b"0123456789abcdefABCDEF"

EOF_LIST = "EOF while parsing a list"
EOF_OBJECT = "EOF while parsing an object"
EOF_STRING = "EOF while parsing a string"
EOF_VALUE = "EOF while parsing a value"
EXPECTED_VALUE = "expected value"
TRAILING_COMMA = "trailing comma"
TRAILING_CHARACTERS = "trailing characters"
KEY_NOT_STRING = "key must be a string"


class SerdeFault(ValueError):
    """A refused document. ``place`` is (line, column), None while unknown."""

    def __init__(self, reason: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place

    def __str__(self) -> str:
        """The whole text, as ``serde_json::Error`` shows itself."""
        if self.place is None:
            return self.reason
        return f"{self.reason} at line {self.place[0]} column {self.place[1]}"

    @property
    def debug(self) -> str:
        """``{:?}`` of the error."""
        line, column = self.place or (0, 0)
        return f"Error({debug_str(self.reason)}, line: {line}, column: {column})"


class Scanner:
    """Reads one document; ``index`` is the number of bytes read."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.index = 0
        self.depth = DEPTH_LIMIT

    # -- places and faults

    def place_of(self, index: int) -> tuple[int, int]:
        """Line and column of the point behind ``index`` bytes."""
        start = self.body.rfind(b"\n", 0, index) + 1
        return 1 + self.body.count(b"\n", 0, start), index - start

    def fault(self, reason: str) -> SerdeFault:
        """A fault at the bytes read."""
        return SerdeFault(reason, self.place_of(self.index))

    def peek_fault(self, reason: str) -> SerdeFault:
        """A fault at the byte ahead."""
        return SerdeFault(reason, self.place_of(min(len(self.body), self.index + 1)))

    # -- bytes

    def peek(self) -> int | None:
        """The byte ahead, None at the end."""
        return self.body[self.index] if self.index < len(self.body) else None

    def next(self) -> int | None:
        """The byte ahead, which is read then; None at the end."""
        byte = self.peek()
        if byte is not None:
            self.index += 1
        return byte

    def space(self) -> int | None:
        """Skip whitespace; the byte ahead, None at the end."""
        while (byte := self.peek()) is not None and byte in _WHITESPACE:
            self.index += 1
        return byte

    def value_ahead(self) -> int:
        """Skip whitespace; the byte ahead, which there must be."""
        byte = self.space()
        if byte is None:
            raise self.peek_fault(EOF_VALUE)
        return byte

    def ident(self, rest: bytes) -> None:
        """Read what is left of ``null``, ``true`` or ``false``."""
        for expected in rest:
            byte = self.next()
            if byte is None:
                raise self.fault(EOF_VALUE)
            if byte != expected:
                raise self.fault("expected ident")

    def enter(self) -> None:
        """Read a bracket and go one level down."""
        self.depth -= 1
        if not self.depth:
            raise self.peek_fault("recursion limit exceeded")
        self.index += 1

    # -- what stands between values

    def first_or_comma(self, first: bool) -> bool:
        """Whether an array has another element, read up to it."""
        byte = self.space()
        if byte is None:
            raise self.peek_fault(EOF_LIST)
        if byte == ord("]"):
            return False
        if first:
            return True
        if byte != ord(","):
            raise self.peek_fault("expected `,` or `]`")
        self.index += 1
        if self.value_ahead() == ord("]"):
            raise self.peek_fault(TRAILING_COMMA)
        return True

    def key_ahead(self, first: bool) -> bool:
        """Whether an object has another key, read up to its quote."""
        byte = self.space()
        if byte is None:
            raise self.peek_fault(EOF_OBJECT)
        if byte == ord("}"):
            return False
        if not first:
            if byte != ord(","):
                raise self.peek_fault("expected `,` or `}`")
            self.index += 1
            byte = self.value_ahead()
            if byte == ord("}"):
                raise self.peek_fault(TRAILING_COMMA)
        if byte != ord('"'):
            raise self.peek_fault(KEY_NOT_STRING)
        return True

    def colon(self) -> None:
        """Read the colon behind a key."""
        byte = self.space()
        if byte != ord(":"):
            raise self.peek_fault(EOF_OBJECT if byte is None else "expected `:`")
        self.index += 1

    def end_seq(self) -> None:
        """Read the bracket behind the last element."""
        byte = self.space()
        if byte == ord(","):
            self.index += 1
            comma = self.space() == ord("]")
            raise self.peek_fault(TRAILING_COMMA if comma else TRAILING_CHARACTERS)
        if byte != ord("]"):
            raise self.peek_fault(EOF_LIST if byte is None else TRAILING_CHARACTERS)
        self.index += 1

    def end_map(self) -> None:
        """Read the brace behind the last value."""
        byte = self.space()
        if byte == ord(","):
            raise self.peek_fault(TRAILING_COMMA)
        if byte != ord("}"):
            raise self.peek_fault(EOF_OBJECT if byte is None else TRAILING_CHARACTERS)
        self.index += 1

    def end(self) -> None:
        """Refuse whatever follows the document."""
        if self.space() is not None:
            raise self.peek_fault(TRAILING_CHARACTERS)

    # -- strings

    def string(self) -> str:
        """Read a string behind its opening quote."""
        parts = bytearray()
        while True:
            byte = self.next()
            if byte is None:
                raise self.fault(EOF_STRING)
            if byte == ord('"'):
                break
            if byte == ord("\\"):
                parts += self._escape()
            elif byte < 0x20:
                raise self.fault(_CONTROL)
            else:
                parts.append(byte)
        try:
            return parts.decode()
        except UnicodeDecodeError:
            raise self.fault("invalid unicode code point") from None

    def skip_string(self) -> None:
        """Read a string that nobody wants: its encoding does not matter."""
        while (byte := self.peek()) != ord('"'):
            if byte is None:
                raise self.fault(EOF_STRING)
            if byte < 0x20:
                raise self.fault(_CONTROL)
            self.index += 1
            if byte == ord("\\"):
                self._skip_escape()
        self.index += 1

    def _escape(self) -> bytes:
        byte = self._escaped()
        if byte != ord("u"):
            return _ESCAPES[byte]
        unit = self._hex()
        if 0xDC00 <= unit <= 0xDFFF:
            raise self.fault(_LONE_SURROGATE)
        if not 0xD800 <= unit <= 0xDBFF:
            return chr(unit).encode()
        for expected in b"\\u":
            byte_ahead = self.peek()
            if byte_ahead is None:
                raise self.fault(EOF_STRING)
            self.index += 1
            if byte_ahead != expected:
                raise self.fault("unexpected end of hex escape")
        low = self._hex()
        if not 0xDC00 <= low <= 0xDFFF:
            raise self.fault(_LONE_SURROGATE)
        return chr(((unit - 0xD800) << 10 | low - 0xDC00) + 0x10000).encode()

    def _skip_escape(self) -> None:
        if self._escaped() == ord("u"):
            self._hex()

    def _escaped(self) -> int:
        byte = self.next()
        if byte is None:
            raise self.fault(EOF_STRING)
        if byte not in _ESCAPES and byte != ord("u"):
            raise self.fault("invalid escape")
        return byte

    def _hex(self) -> int:
        digits = self.body[self.index : self.index + 4]
        self.index += len(digits)
        if len(digits) < 4:
            raise self.fault(EOF_STRING)
        if any(digit not in _HEX for digit in digits):
            raise self.fault("invalid escape")
        return int(digits, 16)


_CONTROL = "control character (\\u0000-\\u001F) found while parsing a string"
_LONE_SURROGATE = "lone leading surrogate in hex escape"
