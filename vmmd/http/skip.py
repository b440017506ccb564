"""Reading over a value that nobody wants, as serde_json's ``ignore_value`` does.

It has no limit of depth, does not care for encodings, and words some faults
otherwise than the reading of wanted values.
"""

from __future__ import annotations

from .numbers import INVALID_NUMBER
from .scanner import (
    EOF_LIST,
    EOF_OBJECT,
    EXPECTED_VALUE,
    KEY_NOT_STRING,
    Scanner,
)

_CLOSE = {ord("["): ord("]"), ord("{"): ord("}")}
_EOF = {ord("["): EOF_LIST, ord("{"): EOF_OBJECT}
_COMMA_OR_END = {ord("["): "expected `,` or `]`", ord("{"): "expected `,` or `}`"}
_IDENTS = {ord("n"): b"ull", ord("t"): b"rue", ord("f"): b"alse"}
_DIGITS = b"0123456789"


def skip_value(scan: Scanner) -> None:
    """Read over one value. Raises SerdeFault."""
    frames: list[int] = []
    while True:
        opened = _skip_part(scan, frames)
        if not _skip_ends(scan, frames, not opened):
            return
        if frames[-1] == ord("{"):
            _skip_key(scan)


def _skip_part(scan: Scanner, frames: list[int]) -> bool:
    """Read a scalar, or an opening bracket: then True."""
    byte = scan.value_ahead()
    if byte in _CLOSE:
        frames.append(byte)
        scan.index += 1
        return True
    if byte in _IDENTS:
        scan.index += 1
        scan.ident(_IDENTS[byte])
    elif byte == ord('"'):
        scan.index += 1
        scan.skip_string()
    elif byte == ord("-") or byte in _DIGITS:
        scan.index += byte == ord("-")
        _skip_number(scan)
    else:
        raise scan.peek_fault(EXPECTED_VALUE)
    return False


def _skip_ends(scan: Scanner, frames: list[int], after_value: bool) -> bool:
    """Read closing brackets and a comma; whether another value follows."""
    while frames:
        byte = scan.space()
        if byte == ord(",") and after_value:
            scan.index += 1
            return True
        if byte is None:
            raise scan.peek_fault(_EOF[frames[-1]])
        if byte != _CLOSE[frames[-1]]:
            if after_value:
                raise scan.peek_fault(_COMMA_OR_END[frames[-1]])
            return True
        scan.index += 1
        frames.pop()
        after_value = True
    return False


def _skip_key(scan: Scanner) -> None:
    byte = scan.space()
    if byte != ord('"'):
        raise scan.peek_fault(EOF_OBJECT if byte is None else KEY_NOT_STRING)
    scan.index += 1
    scan.skip_string()
    scan.colon()


def _skip_number(scan: Scanner) -> None:
    byte = scan.next()
    if byte is None or byte not in _DIGITS:
        raise scan.fault(INVALID_NUMBER)
    if byte == ord("0"):
        if _digits(scan):
            raise scan.peek_fault(INVALID_NUMBER)
    else:
        scan.index += _digits(scan)
    if scan.peek() == ord("."):
        scan.index += 1
        count = _digits(scan)
        if not count:
            raise scan.peek_fault(INVALID_NUMBER)
        scan.index += count
    if scan.peek() in (ord("e"), ord("E")):
        _skip_exponent(scan)


def _skip_exponent(scan: Scanner) -> None:
    scan.index += 1
    if scan.peek() in (ord("+"), ord("-")):
        scan.index += 1
    byte = scan.next()
    if byte is None or byte not in _DIGITS:
        raise scan.fault(INVALID_NUMBER)
    scan.index += _digits(scan)


def _digits(scan: Scanner) -> int:
    """How many digits are ahead."""
    end = scan.index
    while end < len(scan.body) and scan.body[end] in _DIGITS:
        end += 1
    return end - scan.index
