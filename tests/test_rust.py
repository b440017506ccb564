"""Texts as Rust's standard library writes them."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.rust import WHITE_SPACE, debug_str, io_error, io_error_debug, utf8_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", '""'),
        ("plain 'text'", "\"plain 'text'\""),
        ('{"a":\n1}', '"{\\"a\\":\\n1}"'),
        ("\t\r\0\\", '"\\t\\r\\0\\\\"'),
        ("\x01\x1b\x7f", '"\\u{1}\\u{1b}\\u{7f}"'),
        ("é😀", '"é😀"'),
        ("e\u0301", '"e\\u{301}"'),
        ("\u200b\u00a0\ue000", '"\\u{200b}\\u{a0}\\u{e000}"'),
    ],
)
def test_debug_of_a_string(text: str, shown: str) -> None:
    assert debug_str(text) == shown


@given(st.text())
def test_debug_of_a_string_is_one_printable_line(text: str) -> None:
    shown = debug_str(text)
    assert shown.isprintable()
    assert shown[0] == shown[-1] == '"'


def test_errors_of_the_system() -> None:
    error = OSError(errno.ENOENT, "whatever it says")
    assert io_error(error) == "No such file or directory (os error 2)"
    assert io_error_debug(error) == (
        'Os { code: 2, kind: NotFound, message: "No such file or directory" }'
    )
    assert "kind: Uncategorized" in io_error_debug(OSError(errno.EIO, ""))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ab\xff", "invalid utf-8 sequence of 1 bytes from index 2"),
        (b"\xe2\x28\xa1", "invalid utf-8 sequence of 1 bytes from index 0"),
        (b"\xe2\x82(", "invalid utf-8 sequence of 2 bytes from index 0"),
        (b"\xf0\x90\x80(", "invalid utf-8 sequence of 3 bytes from index 0"),
        (b"x\xe2\x82", "incomplete utf-8 byte sequence from index 1"),
        (b"\xed\xa0\x80", "invalid utf-8 sequence of 1 bytes from index 0"),
    ],
)
def test_bytes_that_are_no_utf8(data: bytes, text: str) -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        data.decode()
    assert utf8_error(caught.value) == text


def test_white_space_is_unicodes_and_not_pythons() -> None:
    assert "\x1c\x1f \u3000x".strip(WHITE_SPACE) == "\x1c\x1f \u3000x"
    assert "\u3000\x85 x\u2029".strip(WHITE_SPACE) == "x"
