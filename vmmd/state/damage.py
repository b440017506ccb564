"""What is said of a state file that is damaged, or none at all.

Firecracker reads its own before it looks at their checksum, and has one text for
whatever it cannot read: ours are answered with the same.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmmd.errors import SnapshotError
from vmmd.state.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREADABLE = "An error occurred during bitcode serialization: bitcode error"
"""What Firecracker says of such a file of its own."""
UNREADABLE_DEBUG = 'Bitcode(Error("bitcode error"))'
CHECKSUM_SIZE = 4


class UnreadableFileError(SnapshotError):
    """The file is damaged: its header cannot be read, or its end is missing."""


class BrokenError(SnapshotError):
    """The header cannot be read, or an object goes on past the end."""


class ForeignFileError(UnreadableFileError):
    """The file is something else, or was made by something else."""


def is_intact(data: bytes) -> bool:
    """Whether the checksum at the end is that of all before it."""
    summed = crc32c(memoryview(data)[:-CHECKSUM_SIZE])
    return summed == int.from_bytes(data[-CHECKSUM_SIZE:], "little")


@contextmanager
def judged(data: bytes) -> Iterator[None]:
    """What cannot be read is a fault of the writer, or damage: the checksum tells."""
    try:
        yield
    except SnapshotError as fault:
        if is_intact(data):
            raise
        if not isinstance(fault, BrokenError):
            raise wrong_checksum() from fault
        error = UnreadableFileError(f"the file is damaged: {fault}")
        error.debug = UNREADABLE_DEBUG
        raise error from fault


def wrong_checksum() -> SnapshotError:
    """Of a file that can be read, and was changed since it was written."""
    return fault_of("CRC64 validation failed", "Crc64")


def fault_of(text: str, debug: str) -> SnapshotError:
    """An error with Firecracker's debug form of its own."""
    error = SnapshotError(text)
    error.debug = debug
    return error
