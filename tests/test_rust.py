"""Texts as Rust's standard library writes them."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.rust import (
    WHITE_SPACE,
    ParseIntError,
    c_path,
    debug_char,
    debug_str,
    io_error,
    io_error_debug,
    parse_unsigned,
    utf8_error,
)


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


def test_a_path_with_a_nul_in_it() -> None:
    assert c_path("/a b") == "/a b"
    with pytest.raises(OSError, match="NUL") as caught:
        c_path("/a\0b")
    assert io_error(caught.value) == "file name contained an unexpected NUL byte"
    assert io_error_debug(caught.value) == (
        "Error { kind: InvalidInput, "
        'message: "file name contained an unexpected NUL byte" }'
    )


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


@pytest.mark.parametrize(
    ("char", "shown"),
    [("a", "'a'"), ("'", "'\\''"), ('"', "'\"'"), ("\0", "'\\0'"), ("é", "'é'")],
)
def test_debug_of_a_character(char: str, shown: str) -> None:
    assert debug_char(char) == shown


def test_errors_are_worded_as_by_the_released_binaries() -> None:
    assert io_error(OSError(errno.EADDRINUSE, "")) == "Address in use (os error 98)"
    assert io_error(OSError(errno.ENOMEM, "")) == "Out of memory (os error 12)"


@given(st.integers(0, (1 << 32) - 1), st.sampled_from((2, 10, 16)), st.booleans())
def test_numbers_of_a_radix(value: int, radix: int, plus: bool) -> None:
    text = {2: f"{value:b}", 10: str(value), 16: f"{value:X}"}[radix]
    assert parse_unsigned("+" * plus + text, radix, 32) == value


@pytest.mark.parametrize(
    ("text", "radix", "kind"),
    [
        ("", 10, "Empty"),
        ("+", 10, "InvalidDigit"),
        ("-", 10, "InvalidDigit"),
        ("-1", 10, "InvalidDigit"),
        ("++1", 10, "InvalidDigit"),
        (" 1", 10, "InvalidDigit"),
        ("1_0", 10, "InvalidDigit"),
        ("٣", 10, "InvalidDigit"),
        ("2", 2, "InvalidDigit"),
        ("256", 10, "PosOverflow"),
        ("999x", 10, "PosOverflow"),
        ("25x", 10, "InvalidDigit"),
    ],
)
def test_numbers_that_are_none(text: str, radix: int, kind: str) -> None:
    with pytest.raises(ParseIntError) as caught:
        parse_unsigned(text, radix, 8)
    assert caught.value.kind == kind
    assert caught.value.debug == f"ParseIntError {{ kind: {kind} }}"
