"""The checksum of firmware tables: all bytes add up to zero."""

from __future__ import annotations


def checksummed(data: bytes, at: int) -> bytes:
    """``data`` with the byte at ``at``, zero so far, making the sum zero mod 256."""
    return data[:at] + bytes([-sum(data) & 0xFF]) + data[at + 1 :]
