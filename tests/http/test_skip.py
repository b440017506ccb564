"""Reading over values that nobody wants."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.http.scanner import Scanner, SerdeFault
from vmmd.http.skip import skip_value


def skipped(body: bytes) -> bytes:
    """What is left behind one value."""
    scan = Scanner(body)
    skip_value(scan)
    return scan.body[scan.index :]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False,
        allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.sampled_from((None, 1)),
)  # fmt: skip
def test_exactly_one_value_is_read(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert skipped(f"{text},7".encode()) == b",7"


def test_depth_does_not_matter() -> None:
    assert skipped(b"[" * 5000 + b"]" * 5000) == b""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[", "EOF while parsing a list at line 1 column 1"),
        ("[1", "EOF while parsing a list at line 1 column 2"),
        ("[1,", "EOF while parsing a value at line 1 column 3"),
        ("[1,]", "expected value at line 1 column 4"),
        ("[1 2]", "expected `,` or `]` at line 1 column 4"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{1", "key must be a string at line 1 column 2"),
        ('{"a"', "EOF while parsing an object at line 1 column 4"),
        ('{"a"1', "expected `:` at line 1 column 5"),
        ('{"a":1', "EOF while parsing an object at line 1 column 6"),
        ('{"a":1]', "expected `,` or `}` at line 1 column 7"),
        ('{"a":1,}', "key must be a string at line 1 column 8"),
        ('{"a":1,', "EOF while parsing an object at line 1 column 7"),
        ("-", "invalid number at line 1 column 1"),
        ("01", "invalid number at line 1 column 2"),
        ("1.", "invalid number at line 1 column 2"),
        ("1e", "invalid number at line 1 column 2"),
        ("trup", "expected ident at line 1 column 4"),
        ('"\\x"', "invalid escape at line 1 column 3"),
        ('"\\u00', "EOF while parsing a string at line 1 column 5"),
        (
            '"\n"',
            "control character (\\u0000-\\u001F) found while parsing a string at line"
            " 1 column 1",
        ),
        ("?", "expected value at line 1 column 1"),
    ],
)
def test_faults(body: str, text: str) -> None:
    with pytest.raises(SerdeFault) as caught:
        skipped(body.encode())
    assert str(caught.value) == text


def test_lone_surrogates_and_other_bytes_are_skipped() -> None:
    assert skipped(b'"\\ud800\xff\\/"!') == b"!"
