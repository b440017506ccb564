"""Numbers as serde_json reads, rounds and shows them."""

from __future__ import annotations

from typing import TypeAlias

from .scanner import EOF_VALUE, Scanner

# An integer of i64 or u64, or a float.
Number: TypeAlias = int | float

_DIGITS = b"0123456789"
_U64_END = 1 << 64
_I64_MIN = -(1 << 63)
_I32_MAX = (1 << 31) - 1
_I32_MIN = -(1 << 31)
_MAX_POW10 = 308

INVALID_NUMBER = "invalid number"
OUT_OF_RANGE = "number out of range"


def show_float(value: float) -> str:
    """A finite float: shortest digits; an exponent below 1e-5 and from 1e16 on."""
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    if not e:
        return text
    if int(exponent) == -5:
        sign = "-" if mantissa.startswith("-") else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent):+d}"


def show_number(value: Number) -> str:
    """A number, as the texts of wrong types name it."""
    if isinstance(value, float):
        return f"floating point `{show_float(value)}`"
    return f"integer `{value}`"


def read_number(scan: Scanner, positive: bool) -> Number:
    """Read a number behind its sign, as serde_json rounds it."""
    byte = scan.next()
    if byte is None:
        raise scan.fault(EOF_VALUE)
    if byte == ord("0"):
        if _digit_ahead(scan):
            raise scan.peek_fault(INVALID_NUMBER)
        return _after_integer(scan, positive, 0)
    if byte not in _DIGITS:
        raise scan.fault(INVALID_NUMBER)
    significand = byte - ord("0")
    while _digit_ahead(scan):
        wider = significand * 10 + scan.body[scan.index] - ord("0")
        if wider >= _U64_END:
            return _long_integer(scan, positive, significand)
        scan.index += 1
        significand = wider
    return _after_integer(scan, positive, significand)


def _digit_ahead(scan: Scanner) -> bool:
    byte = scan.peek()
    return byte is not None and byte in _DIGITS


def _exponent_ahead(scan: Scanner) -> bool:
    return scan.peek() in (ord("e"), ord("E"))


def _after_integer(scan: Scanner, positive: bool, significand: int) -> Number:
    if scan.peek() == ord("."):
        return _decimal(scan, positive, significand, 0)
    if _exponent_ahead(scan):
        return _exponent(scan, positive, significand, 0)
    if positive:
        return significand
    # What does not fit an i64, and -0, is a float.
    fits = 0 < significand <= -_I64_MIN
    return -significand if fits else -float(significand)


def _long_integer(scan: Scanner, positive: bool, significand: int) -> float:
    exponent = 0
    while _digit_ahead(scan):
        scan.index += 1
        exponent += 1
    if scan.peek() == ord("."):
        return _decimal(scan, positive, significand, exponent)
    if _exponent_ahead(scan):
        return _exponent(scan, positive, significand, exponent)
    return _float(scan, positive, significand, exponent)


def _decimal(scan: Scanner, positive: bool, significand: int, exponent: int) -> float:
    scan.index += 1
    start = scan.index
    while _digit_ahead(scan):
        wider = significand * 10 + scan.body[scan.index] - ord("0")
        if wider >= _U64_END:
            exponent -= scan.index - start
            return _decimal_overflow(scan, positive, significand, exponent)
        scan.index += 1
        significand = wider
    if scan.index == start:
        end = scan.peek() is None
        raise scan.peek_fault(EOF_VALUE if end else INVALID_NUMBER)
    exponent -= scan.index - start
    if _exponent_ahead(scan):
        return _exponent(scan, positive, significand, exponent)
    return _float(scan, positive, significand, exponent)


def _decimal_overflow(
    scan: Scanner, positive: bool, significand: int, exponent: int
) -> float:
    while _digit_ahead(scan):
        scan.index += 1
    if _exponent_ahead(scan):
        return _exponent(scan, positive, significand, exponent)
    return _float(scan, positive, significand, exponent)


def _exponent(scan: Scanner, positive: bool, significand: int, start: int) -> float:
    scan.index += 1
    negative = scan.peek() == ord("-")
    if scan.peek() in (ord("+"), ord("-")):
        scan.index += 1
    byte = scan.next()
    if byte is None:
        raise scan.fault(EOF_VALUE)
    if byte not in _DIGITS:
        raise scan.fault(INVALID_NUMBER)
    exponent = byte - ord("0")
    while _digit_ahead(scan):
        digit = scan.body[scan.index] - ord("0")
        scan.index += 1
        if exponent * 10 + digit > _I32_MAX:
            return _huge_exponent(scan, positive, significand, negative)
        exponent = exponent * 10 + digit
    total = start - exponent if negative else start + exponent
    return _float(scan, positive, significand, max(_I32_MIN, min(total, _I32_MAX)))


def _huge_exponent(
    scan: Scanner, positive: bool, significand: int, negative: bool
) -> float:
    if significand and not negative:
        raise scan.fault(OUT_OF_RANGE)
    while _digit_ahead(scan):
        scan.index += 1
    return 0.0 if positive else -0.0


def _float(scan: Scanner, positive: bool, significand: int, exponent: int) -> float:
    value = float(significand)
    while abs(exponent) > _MAX_POW10 and value:
        if exponent >= 0:
            raise scan.fault(OUT_OF_RANGE)
        value /= 1e308
        exponent += _MAX_POW10
    if value:
        power = float(f"1e{abs(exponent)}")
        value = value * power if exponent >= 0 else value / power
    if value == float("inf"):
        raise scan.fault(OUT_OF_RANGE)
    return value if positive else -value
