"""Strings of a syntax of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import LogLevel
from vmmd.http import syntaxes as s
from vmmd.templates import KvmCapability, RegisterFilter

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable

NUMBER = "Failed to parse string [{}] as a number for CPU template - ParseIntError {{ kind: {} }}"
CAPABILITY = (
    "Failed to parse string [{}] as a kvm capability - can not convert to numeric: {}"
)
BITMAP = "Failed to parse string [{}] as a bitmap - {}"
PREFIX = (
    "No supported number system prefix found in value [{}]. Make sure to prefix the"
    " number with '0x' for hexadecimal numbers or '0b' for binary numbers."
)
MAC = "The provided MAC address is invalid."

FAULTS: list[tuple[Callable[[str], object], str, str]] = [
    (s.log_level, "fatal", "Invalid LevelFilter"),
    (s.log_level, "", "Invalid LevelFilter"),
    (s.log_level, " info", "Invalid LevelFilter"),
    *((s.mac_address, text, MAC) for text in (
        "", "06:00:00:00:00", "06:00:00:00:00:000", "06:00:00:00:00:0g", "06-00-00-00-00-00",
        "6:00:00:00:00:00", "06:00:00:00:00:00:00", "06:00:00:00:00:é", "06:00:00:00:00: 1",
    )),
    *((s.ipv4_address, text, "invalid IPv4 address syntax") for text in (
        "", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "1.2.3.٤", " 1.2.3.4",
        "1.2.3.0000",
    )),
    (s.prefixed_u32, "1", PREFIX.format("1")),
    (s.prefixed_u32, "0X1", PREFIX.format("0X1")),
    (s.prefixed_u32, "0x", NUMBER.format("0x", "Empty")),
    (s.prefixed_u32, "0x1_0", NUMBER.format("0x1_0", "InvalidDigit")),
    (s.prefixed_u32, "0b2", NUMBER.format("0b2", "InvalidDigit")),
    (s.prefixed_u32, "0x100000000", NUMBER.format("0x100000000", "PosOverflow")),
    (s.kvm_capability, "x", CAPABILITY.format("x", "invalid digit found in string")),
    (s.kvm_capability, "!!1", CAPABILITY.format("!!1", "invalid digit found in string")),
    (s.kvm_capability, "!", CAPABILITY.format("!", "cannot parse integer from empty string")),
    (s.kvm_capability, "4294967296", CAPABILITY.format("4294967296",
        "number too large to fit in target type")),
    (s.cpuid_register, "EAX", "Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]"),
    (s.bitmap32, "0b2", BITMAP.format("0b2", "unknown character: 50")),
    (s.bitmap32, "é", BITMAP.format("é", "unknown character: 169")),
    (s.bitmap32, "x" * 33, BITMAP.format("x" * 33, "string is too long")),
    (s.bitmap32, "_" + "x" * 32, BITMAP.format("_" + "x" * 32, "string is too long")),
    (s.bitmap64, "1" * 65, BITMAP.format("1" * 65, "string is too long")),
    (s.semver, "", "empty string, expected a semver version"),
    (s.semver, "1", "unexpected end of input while parsing major version number"),
    (s.semver, "1.1", "unexpected end of input while parsing minor version number"),
    (s.semver, "1.", "unexpected end of input while parsing minor version number"),
    (s.semver, "v1.0.0", "unexpected character 'v' while parsing major version number"),
    (s.semver, "1..0", "unexpected character '.' while parsing minor version number"),
    (s.semver, "1.x.0", "unexpected character 'x' while parsing minor version number"),
    (s.semver, "1a.0.0", "unexpected character 'a' after major version number"),
    (s.semver, "01.0.0", "invalid leading zero in major version number"),
    (s.semver, "1.0.00", "invalid leading zero in patch version number"),
    (s.semver, "1.0.0 ", "unexpected character ' ' after patch version number"),
    (s.semver, "1.0.0\0", "unexpected character '\\0' after patch version number"),
    (s.semver, "1.0.0-", "empty identifier segment in pre-release identifier"),
    (s.semver, "1.0.0-a..b", "empty identifier segment in pre-release identifier"),
    (s.semver, "1.0.0-01", "invalid leading zero in pre-release identifier"),
    (s.semver, "1.0.0-a é", "unexpected character ' ' after pre-release identifier"),
    (s.semver, "1.0.0+", "empty identifier segment in build metadata"),
    (s.semver, "1.0.0+a+b", "unexpected character '+' after build metadata"),
    (s.semver, "18446744073709551616.0.0", "value of major version number exceeds u64::MAX"),
    (s.semver, "9" * 5000 + ".0.0", "value of major version number exceeds u64::MAX"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("convert", "text", "fault"), FAULTS, ids=lambda x: str(x)[:20]
)
def test_faults(convert: Callable[[str], object], text: str, fault: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        convert(text)
    assert str(caught.value) == fault


VALUES: list[tuple[Callable[[str], object], str, object]] = [
    (s.log_level, "WARNING", LogLevel.WARN),
    (s.log_level, "warn", LogLevel.WARN),
    (s.log_level, "oFF", LogLevel.OFF),
    (s.mac_address, "AA:bb:0C:00:00:01", "aa:bb:0c:00:00:01"),
    (s.mac_address, "+f:00:00:00:00:00", "0f:00:00:00:00:00"),
    (s.ipv4_address, "169.254.0.255", "169.254.0.255"),
    (s.prefixed_u32, "0xFFffFFff", 0xFFFFFFFF),
    (s.prefixed_u32, "0b101", 5),
    (s.prefixed_u32, "0x+1", 1),
    (s.kvm_capability, "121", KvmCapability(121, False)),
    (s.kvm_capability, "!56", KvmCapability(56, True)),
    (s.cpuid_register, "ecx", "ecx"),
    (s.bitmap32, "", RegisterFilter(0, 0)),
    (s.bitmap32, "0b", RegisterFilter(0, 0)),
    (s.bitmap32, "0b1_0_x", RegisterFilter(0b110, 0b100)),
    (s.bitmap64, "1" + "x" * 63, RegisterFilter(1 << 63, 1 << 63)),
    (s.semver, "0.22.0", "0.22.0"),
    (s.semver, "1.5.0-dev.1-x+001", "1.5.0-dev.1-x+001"),
]


@pytest.mark.parametrize(
    ("convert", "text", "value"), VALUES, ids=lambda x: str(x)[:20]
)
def test_values(convert: Callable[[str], object], text: str, value: object) -> None:
    assert convert(text) == value


@given(st.ip_addresses(v=4))
def test_addresses(address: ipaddress.IPv4Address) -> None:
    assert s.ipv4_address(str(address)) == str(address)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_bitmaps(mask: int, value: int) -> None:
    bits = zip(f"{mask:064b}", f"{value:064b}", strict=True)
    text = "".join(bit if kept == "1" else "x" for kept, bit in bits)
    assert s.bitmap64(text) == RegisterFilter(mask, value & mask)
