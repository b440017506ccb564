"""AML, as far as a DSDT of fixed devices needs it (ACPI 6.5, chapter 20).

Each function returns the encoding of one term. Resource descriptors are those
of section 6.4.
"""

from __future__ import annotations

import struct

_ZERO, _ONE, _NAME, _BYTE, _WORD, _DWORD, _STRING = 0, 1, 0x08, 0x0A, 0x0B, 0x0C, 0x0D
_SCOPE, _BUFFER, _PACKAGE, _METHOD, _EXT, _DEVICE = 0x10, 0x11, 0x12, 0x14, 0x5B, 0x82
_ARG0, _NOTIFY, _EQUAL, _IF = 0x68, 0x86, 0x93, 0xA0
_SERIALIZED = 1 << 3


def integer(value: int) -> bytes:
    """The shortest constant for ``value``, at most 32 bits."""
    if value in (_ZERO, _ONE):
        return bytes([value])
    for opcode, form in ((_BYTE, "<BB"), (_WORD, "<BH"), (_DWORD, "<BI")):
        if value < 1 << 8 * (struct.calcsize(form) - 1):
            return struct.pack(form, opcode, value)
    raise ValueError(f"{value:#x} has more than 32 bits")


def string(text: str) -> bytes:
    """An ASCII string."""
    return bytes([_STRING]) + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """A compressed EISA id, such as ``PNP0501``."""
    a, b, c = (ord(char) - 0x40 for char in text[:3])
    word = a << 26 | b << 21 | c << 16 | int(text[3:], 16)
    return struct.pack("<B4s", _DWORD, word.to_bytes(4, "big"))


def name(segment: str, value: bytes) -> bytes:
    """``Name (segment, value)``; a segment has four characters at most."""
    return bytes([_NAME]) + _segment(segment) + value


def scope(segment: str, *terms: bytes) -> bytes:
    """``Scope (segment) { terms }``."""
    return bytes([_SCOPE]) + _sized(_segment(segment) + b"".join(terms))


def device(segment: str, *terms: bytes) -> bytes:
    """``Device (segment) { terms }``."""
    return bytes([_EXT, _DEVICE]) + _sized(_segment(segment) + b"".join(terms))


def package(*elements: bytes) -> bytes:
    """``Package () { elements }``."""
    return bytes([_PACKAGE]) + _sized(bytes([len(elements)]) + b"".join(elements))


def method(segment: str, *terms: bytes) -> bytes:
    """``Method (segment, 1, Serialized) { terms }``."""
    body = _segment(segment) + bytes([1 | _SERIALIZED]) + b"".join(terms)
    return bytes([_METHOD]) + _sized(body)


def if_argument_is(value: int, *terms: bytes) -> bytes:
    """``If (Arg0 == value) { terms }``."""
    condition = bytes([_EQUAL, _ARG0]) + integer(value)
    return bytes([_IF]) + _sized(condition + b"".join(terms))


def notify(segment: str, value: int) -> bytes:
    """``Notify (segment, value)``; the name is looked for outwards."""
    return bytes([_NOTIFY]) + _segment(segment) + integer(value)


def resources(*descriptors: bytes) -> bytes:
    """``ResourceTemplate () { descriptors }``."""
    data = b"".join(descriptors) + b"\x79\0"  # end tag; checksum 0 is "none"
    return bytes([_BUFFER]) + _sized(integer(len(data)) + data)


def io_ports(base: int, count: int) -> bytes:
    """``count`` ports at ``base``, decoded in 16 bits."""
    return struct.pack("<BBHHBB", 0x47, 1, base, base, 1, count)


def memory32_fixed(base: int, size: int) -> bytes:
    """``size`` writable bytes at ``base``."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, size)


def memory64(base: int, size: int) -> bytes:
    """``size`` bytes at ``base``: ordinary memory, cacheable, read-only."""
    fixed, cacheable = 0x0C, 0x02  # both ends fixed
    head = struct.pack("<BHBBB", 0x8A, 43, 0, fixed, cacheable)
    return head + struct.pack("<5Q", 0, base, base + size - 1, 0, size)


def interrupt(gsi: int) -> bytes:
    """A consumed interrupt: edge, active-high, exclusive."""
    return struct.pack("<BHBBI", 0x89, 6, 0b0011, 1, gsi)


def _segment(text: str) -> bytes:
    return text.ljust(4, "_").encode("ascii")


def _sized(body: bytes) -> bytes:
    """PkgLength, which counts itself, and ``body``."""
    if len(body) < 63:
        return bytes([len(body) + 1]) + body
    for extra in (1, 2, 3):
        total = len(body) + 1 + extra
        if total < 1 << (4 + 8 * extra):
            rest = (total >> 4).to_bytes(extra, "little")
            return bytes([extra << 6 | total & 0xF]) + rest + body
    raise ValueError(f"{len(body)} bytes in one AML package")
