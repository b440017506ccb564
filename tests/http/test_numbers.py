"""Numbers as serde_json reads and shows them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.http.numbers import read_number, show_float, show_number
from vmmd.http.scanner import Scanner, SerdeFault


def number(text: str) -> int | float:
    """What a text reads as."""
    negative = text.startswith("-")
    return read_number(Scanner(text.removeprefix("-").encode()), not negative)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.5, "1.5"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.8446744073709552e19, "1.8446744073709552e+19"),
        (0.0001, "0.0001"),
        (1e-5, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (1e-6, "1e-6"),
        (5e-324, "5e-324"),
    ],
)
def test_floats_are_shown(value: float, text: str) -> None:
    assert show_float(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_shown_is_the_same_float(value: float) -> None:
    assert float(show_float(value)) == value


def test_kinds_of_numbers() -> None:
    assert show_number(-3) == "integer `-3`"
    assert show_number(2.0) == "floating point `2.0`"


@given(st.integers(-(1 << 63), (1 << 64) - 1).filter(bool))
def test_integers_of_64_bits_stay_integers(value: int) -> None:
    read = number(str(value))
    assert isinstance(read, int)
    assert read == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551616", 1.8446744073709552e19),
        ("12345678901234567890123", 1.2345678901234568e22),
        ("-9223372036854775809", -9.223372036854776e18),
        ("123456789012345678901234567890.5e-3", 1.2345678901234568e26),
        ("0.30000000000000000000000001", 0.3),
        ("1e5", 100000.0),
        ("2E+3", 2000.0),
        ("25e-1", 2.5),
        ("1e-400", 0.0),
        ("0e99999999999", 0.0),
        ("1e-99999999999", 0.0),
    ],
)
def test_floats_are_read(text: str, value: float) -> None:
    read = number(text)
    assert isinstance(read, float)
    assert read == value


def test_minus_zero_is_a_float() -> None:
    assert math.copysign(1, number("-0")) == -1
    assert math.copysign(1, number("-0e99999999999")) == -1


# Each of these was read so by serde_json itself.
@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("", "EOF while parsing a value", 0),
        ("01", "invalid number", 2),
        ("x", "invalid number", 1),
        ("1.", "EOF while parsing a value", 2),
        ("1.x", "invalid number", 3),
        ("1e", "EOF while parsing a value", 2),
        ("1e+", "EOF while parsing a value", 3),
        ("1ex", "invalid number", 3),
        ("1e309", "number out of range", 5),
        ("1e99999999999", "number out of range", 12),
        ("2e308", "number out of range", 5),
    ],
)
def test_faults(text: str, reason: str, column: int) -> None:
    with pytest.raises(SerdeFault) as caught:
        number(text)
    assert caught.value.reason == reason
    assert caught.value.place == (1, column)
