"""An initramfs as bytes: the newc format, device nodes too, without root."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive; ``mode`` holds its type and its permissions."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """A folder that all may read."""
    return Entry(path, stat.S_IFDIR | 0o755)


def program(path: str, data: bytes) -> Entry:
    """A file that all may read and run."""
    return Entry(path, stat.S_IFREG | 0o755, data)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link to ``target``."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def console() -> Entry:
    """``/dev/console``, without which the kernel starts init with no output."""
    return Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive; folders above an entry are added where the caller left them out.

    Same entries, same bytes: times are 0 and inodes count up.
    """
    whole: dict[str, Entry] = {}
    for item in entries:
        for parent in reversed(PurePosixPath(item.path).parents[:-1]):
            whole.setdefault(str(parent), directory(str(parent)))
        whole[item.path] = item
    parts = [_record(inode, item) for inode, item in enumerate(whole.values(), 1)]
    return b"".join([*parts, _record(0, Entry("TRAILER!!!", 0))])


def _record(inode: int, item: Entry) -> bytes:
    """Header, name and data of the newc format, each padded to four bytes."""
    name = item.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(item.mode) else 1
    fields = (inode, item.mode, 0, 0, links, 0, len(item.data), 0, 0)
    numbers = (*fields, *item.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return _padded(head) + _padded(item.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
