"""The memory manifest: what a memory file holds, block by block.

It stands in the state file's header. A memory file has the guest's regions end
to end; a block is 2 MiB of it. Per block: which pages are data, and a crc32c
over those in order. In a Full file the other pages are zero; in a Diff they are
the parent's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    Plain: TypeAlias = int | str | bytes | list["Plain"] | dict[str, "Plain"] | None

PAGE_SIZE = 4096
BLOCK_SIZE = 2 << 20
BLOCK_PAGES = BLOCK_SIZE // PAGE_SIZE
MAX_REGIONS = 8
MAX_ADDRESS = 1 << 52
MAX_ID_LENGTH = 64
KINDS = ("Full", "Diff")
_KEYS = (
    *("block_size", "checksums", "kind", "page_size", "pages", "parent_id"),
    *("regions", "size", "unverified"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """Block ``index``: 64 bytes of ``pages`` (a bit a page, LSB first) and the
    crc32c over them in order, or None where nobody has read them."""

    index: int
    pages: bytes
    checksum: int | None


@dataclass(frozen=True, slots=True)
class MemoryManifest:
    """``size`` bytes of ``regions`` (guest address, bytes), as a file has them.

    ``pages``: the bitmap of data pages in file order, 64 bytes a block, LSB first.
    ``checksums``: a little-endian u32 a block, 0 where it is unverified or empty.
    ``unverified``: a bit a block whose checksum is not known, LSB first.
    ``parent_id``: the snapshot whose pages a Diff leaves out; None: it has none,
    what is left out is zero.
    """

    size: int
    regions: tuple[tuple[int, int], ...]
    kind: str
    parent_id: str | None
    pages: bytes
    checksums: bytes
    unverified: bytes

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return PAGE_SIZE

    @property
    def block_count(self) -> int:
        """Blocks, the last of which may be short."""
        return count_blocks(self.size)

    @property
    def data_pages(self) -> int:
        """Pages that are data, of all ``size // page_size``."""
        return int.from_bytes(self.pages, "little").bit_count()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in order."""
        return tuple(self.block(index) for index in range(self.block_count))

    def block(self, index: int) -> Block:
        """Block ``index``, from 0."""
        pages = self.pages[64 * index : 64 * index + 64]
        checksum = int.from_bytes(self.checksums[4 * index : 4 * index + 4], "little")
        unknown = self.unverified[index >> 3] >> (index & 7) & 1
        return Block(index, pages, None if unknown else checksum)

    def to_plain(self) -> dict[str, Plain]:
        """As the codec writes it: a map of ints, text, bytes and lists."""
        return {
            "block_size": BLOCK_SIZE,
            "checksums": self.checksums,
            "kind": self.kind,
            "page_size": PAGE_SIZE,
            "pages": self.pages,
            "parent_id": self.parent_id,
            "regions": [[gpa, size] for gpa, size in self.regions],
            "size": self.size,
            "unverified": self.unverified,
        }

    @classmethod
    def from_plain(cls, plain: object) -> MemoryManifest:
        """What ``to_plain`` gave. SnapshotError names the field that is wrong."""
        fields = _fields(plain)
        regions = _regions(fields["regions"])
        size = fields["size"]
        if type(size) is not int or size != sum(length for _, length in regions):
            raise _wrong("size", "is not that of the regions")
        kind, parent_id = _kind(fields["kind"], fields["parent_id"])
        blocks = count_blocks(size)
        made = cls(
            size=size,
            regions=regions,
            kind=kind,
            parent_id=parent_id,
            pages=_blob(fields, "pages", 64 * blocks, size // PAGE_SIZE),
            checksums=_blob(fields, "checksums", 4 * blocks, 32 * blocks),
            unverified=_blob(fields, "unverified", (blocks + 7) // 8, blocks),
        )
        _check_empty_blocks(made)
        return made


def count_blocks(size: int) -> int:
    """Blocks of a memory file of ``size`` bytes."""
    return (size + BLOCK_SIZE - 1) // BLOCK_SIZE


def _wrong(field: str, what: str) -> SnapshotError:
    return SnapshotError(f"memory manifest: {field} {what}")


def _fields(plain: object) -> Mapping[str, object]:
    if not isinstance(plain, dict):
        raise SnapshotError("memory manifest: is not a map")
    for key in _KEYS:
        if key not in plain:
            raise _wrong(key, "is missing")
    if len(plain) != len(_KEYS):
        unknown = min(str(key) for key in plain if key not in _KEYS)
        raise _wrong(unknown[:64], "is unknown")
    for key, value in (("page_size", PAGE_SIZE), ("block_size", BLOCK_SIZE)):
        if type(plain[key]) is not int or plain[key] != value:
            raise _wrong(key, f"is not {value}")
    return plain


def _regions(plain: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(plain, list | tuple) or not 0 < len(plain) <= MAX_REGIONS:
        raise _wrong("regions", f"are not 1 to {MAX_REGIONS}")
    regions, end = [], 0
    for item in plain:
        gpa, size = _region(item)
        if gpa < end:
            raise _wrong("regions", "overlap or are out of order")
        end = gpa + size
        regions.append((gpa, size))
    if end > MAX_ADDRESS:
        raise _wrong("regions", "reach beyond 52 bits of address")
    return tuple(regions)


def _region(item: object) -> tuple[int, int]:
    match item:
        case [int(gpa), int(size)] if bool not in (type(gpa), type(size)):
            if gpa < 0 or size <= 0 or gpa % PAGE_SIZE or size % PAGE_SIZE:
                raise _wrong("regions", "are not of whole pages")
            return gpa, size
        case _:
            raise _wrong("regions", "are not pairs of numbers")


def _kind(kind: object, parent_id: object) -> tuple[str, str | None]:
    if not isinstance(kind, str) or kind not in KINDS:
        raise _wrong("kind", "is neither Full nor Diff")
    if parent_id is None:
        return kind, None
    if not isinstance(parent_id, str) or not 0 < len(parent_id) <= MAX_ID_LENGTH:
        raise _wrong("parent_id", f"is not text of 1 to {MAX_ID_LENGTH} characters")
    if kind == "Full":
        raise _wrong("parent_id", "is given, but a Full has none")
    return kind, parent_id


def _blob(fields: Mapping[str, object], name: str, length: int, bits: int) -> bytes:
    """Bytes of this length whose bits from ``bits`` on are clear."""
    blob = fields[name]
    if not isinstance(blob, bytes) or len(blob) != length:
        raise _wrong(name, f"is not {length} bytes")
    whole, rest = bits // 8, bits % 8
    if (rest and blob[whole] >> rest) or any(blob[whole + bool(rest) :]):
        raise _wrong(name, "has bits beyond the end")
    return blob


def _check_empty_blocks(made: MemoryManifest) -> None:
    """A checksum where no page is data, or where it is unknown, is 0."""
    none, unknown = bytes(64), made.unverified
    blocks = enumerate(struct.iter_unpack("64s", made.pages))
    without = {at for at, (pages,) in blocks if pages == none}
    if any(unknown):
        every = range(made.block_count)
        without |= {at for at in every if unknown[at >> 3] >> (at & 7) & 1}
    for at in sorted(without):
        if made.checksums[4 * at : 4 * at + 4] != b"\0\0\0\0":
            raise _wrong("checksums", f"has one for block {at}, which has none")
