"""Strings of a syntax of their own.

Each function takes the text and gives the value, or raises ValueError with the
text of the fault as the API gives it.
"""

from __future__ import annotations

from vmmd.config import LogLevel
from vmmd.rust import ParseIntError, debug_char, parse_unsigned
from vmmd.templates import KvmCapability, RegisterFilter

_LEVELS = {level.lower(): level for level in LogLevel} | {"warning": LogLevel.WARN}
_RADIX = {"0b": 2, "0x": 16}
_REGISTERS = ("eax", "ebx", "ecx", "edx")
_U64_END = 1 << 64
_U64_DIGITS = 20


def log_level(text: str) -> LogLevel:
    """A level in letters of any case."""
    level = _LEVELS.get(text.lower())
    if level is None:
        raise ValueError("Invalid LevelFilter")
    return level


def mac_address(text: str) -> str:
    """Six bytes as ``06:00:ac:10:00:02``; comes out in lower case."""
    parts = text.split(":")
    wrong = ValueError("The provided MAC address is invalid.")
    if len(parts) != 6 or any(len(part.encode()) != 2 for part in parts):
        raise wrong
    try:
        return ":".join(f"{parse_unsigned(part, 16, 8):02x}" for part in parts)
    except ParseIntError:
        raise wrong from None


def ipv4_address(text: str) -> str:
    """Four decimals without leading zeros."""
    parts = text.split(".")
    if len(parts) != 4 or not all(map(_is_octet, parts)):
        raise ValueError("invalid IPv4 address syntax")
    return text


def _is_octet(text: str) -> bool:
    if not (text.isascii() and text.isdigit()) or len(text) > 3:
        return False
    return int(text) < 256 and (text == "0" or text[0] != "0")


def prefixed_u32(text: str) -> int:
    """A number in hexadecimal (``0x``) or binary (``0b``)."""
    radix = _RADIX.get(text[:2])
    if radix is None:
        raise ValueError(
            f"No supported number system prefix found in value [{text}]. Make sure to"
            " prefix the number with '0x' for hexadecimal numbers or '0b' for binary"
            " numbers."
        )
    try:
        return parse_unsigned(text[2:], radix, 32)
    except ParseIntError as error:
        raise ValueError(
            f"Failed to parse string [{text}] as a number for CPU template -"
            f" {error.debug}"
        ) from None


def kvm_capability(text: str) -> KvmCapability:
    """A capability's number, or ``!`` and the number to remove it."""
    try:
        number = parse_unsigned(text.removeprefix("!"), 10, 32)
    except ParseIntError as error:
        raise ValueError(
            f"Failed to parse string [{text}] as a kvm capability - can not convert to"
            f" numeric: {error}"
        ) from None
    return KvmCapability(number, text.startswith("!"))


def cpuid_register(text: str) -> str:
    """The name of a register that CPUID fills."""
    if text not in _REGISTERS:
        raise ValueError("Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]")
    return text


def bitmap32(text: str) -> RegisterFilter:
    """Up to 32 of ``0``, ``1`` and ``x`` (keep), perhaps behind ``0b``."""
    return _bitmap(text, 32)


def bitmap64(text: str) -> RegisterFilter:
    """Up to 64 of ``0``, ``1`` and ``x`` (keep), perhaps behind ``0b``."""
    return _bitmap(text, 64)


def _bitmap(text: str, bits: int) -> RegisterFilter:
    failed = f"Failed to parse string [{text}] as a bitmap -"
    kept, value, place = 0, 0, 0
    for byte in reversed(text.removeprefix("0b").encode()):
        # The check comes before the look at the byte, so a `_` counts here too.
        if place == bits:
            raise ValueError(f"{failed} string is too long")
        if byte == ord("_"):
            continue
        if byte not in b"x01":
            raise ValueError(f"{failed} unknown character: {byte}")
        kept |= (byte != ord("x")) << place
        value |= (byte == ord("1")) << place
        place += 1
    return RegisterFilter(kept, value)


def semver(text: str) -> str:
    """A semantic version; comes out as given."""
    if not text:
        raise ValueError("empty string, expected a semver version")
    rest = text
    for position in ("major", "minor", "patch"):
        rest = _number(rest, position)
        if position != "patch":
            rest = _dot(rest, position)
    if rest.startswith("-"):
        rest = _identifier(rest[1:], "pre-release identifier")
    if rest.startswith("+"):
        rest = _identifier(rest[1:], "build metadata")
    if rest:
        where = _after(text, rest)
        raise ValueError(f"unexpected character {debug_char(rest[0])} after {where}")
    return text


def _number(rest: str, position: str) -> str:
    digits = len(rest) - len(rest.lstrip("0123456789"))
    name = f"{position} version number"
    if not digits:
        if not rest:
            raise ValueError(f"unexpected end of input while parsing {name}")
        char = debug_char(rest[0])
        raise ValueError(f"unexpected character {char} while parsing {name}")
    if digits > 1 and rest[0] == "0":
        raise ValueError(f"invalid leading zero in {name}")
    if digits > _U64_DIGITS or int(rest[:digits]) >= _U64_END:
        raise ValueError(f"value of {name} exceeds u64::MAX")
    return rest[digits:]


def _dot(rest: str, position: str) -> str:
    if not rest:
        raise ValueError(
            f"unexpected end of input while parsing {position} version number"
        )
    if rest[0] != ".":
        char = debug_char(rest[0])
        raise ValueError(f"unexpected character {char} after {position} version number")
    return rest[1:]


def _identifier(rest: str, name: str) -> str:
    end = 0
    while (
        end < len(rest)
        and rest[end].isascii()
        and (rest[end].isalnum() or rest[end] in "-.")
    ):
        end += 1
    for segment in rest[:end].split("."):
        if not segment:
            raise ValueError(f"empty identifier segment in {name}")
        numeric = name == "pre-release identifier" and segment.isdigit()
        if numeric and len(segment) > 1 and segment[0] == "0":
            raise ValueError(f"invalid leading zero in {name}")
    return rest[end:]


def _after(text: str, rest: str) -> str:
    read = text[: len(text) - len(rest)]
    if "+" in read:
        return "build metadata"
    return "pre-release identifier" if "-" in read else "patch version number"
