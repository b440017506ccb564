"""A reader of snapshots written from docs/snapshot-format.md alone.

It imports nothing of vmmd: that what it reads is what vmmd wrote shows that the
page says enough.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = bytes.fromhex("89564d4d440d0a1a")
BLOCK, PAGE = 2_097_152, 4096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The header and the records, as plain maps."""

    header: dict[str, Any]
    records: list[dict[str, Any]]


def read(data: bytes) -> Snapshot:
    """A state file of format 1. ValueError if it breaks a rule."""
    if len(data) > 10_000_000 or data[:8] != MAGIC:
        raise ValueError("no state file")
    (checksum,) = struct.unpack("<I", data[-4:])
    if crc32c(data[:-4]) != checksum:
        raise ValueError("checksum")
    header, *records = _objects(data[8:-4])
    if header["format"] != 1:
        raise ValueError(f"format {header['format']}")
    names = {(record["kind"], record["id"]) for record in records}
    if len(names) != len(records):
        raise ValueError("two records of one name")
    return Snapshot(header, records)


def header_of(data: bytes) -> dict[str, Any]:
    """What a file of any format says of itself."""
    return next(_objects(data[8:-4]))


def data_pages(manifest: dict[str, Any], memory: bytes) -> dict[int, bytes]:
    """The pages that are data, by their place in the file; checks their sums."""
    if len(memory) != manifest["size"]:
        raise ValueError("size of the memory file")
    found: dict[int, bytes] = {}
    for block in range((manifest["size"] + BLOCK - 1) // BLOCK):
        bits = int.from_bytes(manifest["pages"][64 * block :][:64], "little")
        places = [BLOCK * block + PAGE * i for i in range(512) if bits >> i & 1]
        pages = [memory[place : place + PAGE] for place in places]
        found.update(zip(places, pages, strict=True))
        _check(manifest, block, pages)
    return found


def _check(manifest: dict[str, Any], block: int, pages: list[bytes]) -> None:
    (checksum,) = struct.unpack_from("<I", manifest["checksums"], 4 * block)
    known = not manifest["unverified"][block // 8] >> block % 8 & 1
    if known and checksum != (crc32c(b"".join(pages)) if pages else 0):
        raise ValueError(f"block {block}")


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum by a table."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFF_FFFF


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
    return value


_TABLE = [_entry(value) for value in range(256)]


def _objects(body: bytes) -> Iterator[dict[str, Any]]:
    unpacker = msgpack.Unpacker(object_pairs_hook=_map, max_buffer_size=10_000_000)
    unpacker.feed(body)
    yield from unpacker


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key.encode() for key, _ in pairs]
    if any(a >= b for a, b in pairwise(keys)):
        raise ValueError("keys")
    return dict(pairs)
