"""Where guest memory comes from, and the memory file that is opened for it.

All that a load needs of memory files; writing them is ``memory_file`` and
``snapshot_files``.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING

from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.rust import c_path, io_error

if TYPE_CHECKING:
    from vmmd.state.manifest import MemoryManifest

# Non-blocking: a FIFO without a writer would hold the loop before it is refused.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
ID_XATTR = "user.vmmd.id"
"""Of a memory file: the id of its snapshot."""


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A memory file that is open at ``fd``, which is its opener's to close.

    ``manifest``: what its snapshot says of it, None if nobody knows.
    """

    fd: int
    manifest: MemoryManifest | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What guest memory shows where nothing was written since it was mapped.

    Zeros; or the pages of ``base``, mapped privately; or, with ``served``, what
    a page server gives through userfaultfd.
    """

    base: BaseFile | None = None
    served: bool = False


NOWHERE = Origin()


def open_memory_file(path: str, size: int, snapshot_id: str | None) -> int:
    """Open the memory file of a snapshot to map it; the caller closes it.

    Holds a shared lock, so that nobody merges into it while it is open, and looks
    at its size and its snapshot's id (None: any). HostError with Firecracker's
    text, which follows ``Error creating guest memory from file: ``.
    """
    try:
        fd = os.open(c_path(path), _OPEN_FLAGS)
    except OSError as error:
        raise HostError(f"Failed to load guest memory: {io_error(error)}") from error
    try:
        _check_memory(fd, path, size, snapshot_id)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_memory(fd: int, path: str, size: int, snapshot_id: str | None) -> None:
    prefix = "Failed to restore guest memory: "
    held = os.fstat(fd)
    if not stat.S_ISREG(held.st_mode) or held.st_size < size:
        text = "Total sum of memory regions exceeds largest possible file offset"
        raise HostError(prefix + text)
    if not lock(fd, fcntl.LOCK_SH):
        raise HostError(f"{prefix}{path} is being written by another process")
    if held.st_size > size:
        text = f"{path} has {held.st_size} bytes, but the snapshot has {size}"
        raise HostError(prefix + text)
    theirs = get_id(fd)
    if None not in (theirs, snapshot_id) and theirs != snapshot_id:
        text = f"{path} is of snapshot {theirs}, but the state file of {snapshot_id}"
        raise HostError(prefix + text)


def lock(fd: int, kind: int) -> bool:
    """Lock a file without waiting; False if another has a lock that is in the way."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: shared readers go on
        return kind == fcntl.LOCK_SH
    return True


def get_id(file: int | str) -> str | None:
    """The id of the snapshot whose memory file this is, where it is known."""
    try:
        return os.getxattr(file, ID_XATTR).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
