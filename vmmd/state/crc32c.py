"""CRC-32C, the checksum of state files and of a memory file's pages."""

from __future__ import annotations

from vmmd._native import ffi, lib


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The checksum of what ``crc`` is the checksum of, followed by ``data``.

    Castagnoli's polynomial, as in RFC 3720 (iSCSI): ``b"123456789"`` gives
    0xE3069283. ``data`` is not copied.
    """
    view = ffi.from_buffer(data)
    checksum: int = lib.crc32c(crc, view, len(view))
    return checksum
