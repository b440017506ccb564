"""The two files of a snapshot: checks, temporaries, and the commit.

All is written beside its target under a temporary name and made durable; only
then do the names change, in an order that leaves no state file to load between
the first and the last step (``commit.py`` has it). A failure unlinks what is
temporary. Error texts are Firecracker's where it has them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from vmmd.errors import ConfigError, HostError
from vmmd.loop.commit import (
    Names,
    discard,
    finish,
    interrupted,
    set_id,
    sync_folder,
    tidy,
    undo,
)
from vmmd.loop.memory_file import Onto
from vmmd.loop.origin import BaseFile, get_id, lock
from vmmd.rust import c_path, io_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from vmmd.state.manifest import MemoryManifest

STATE, MEMORY = "snapshot", "memory"
_ROOM = len("..00000000-0000-0000-0000-000000000000.merging")  # what Names adds


def _nothing(step: str) -> None:
    """Nobody watches the steps."""


class SnapshotFiles:
    """The files of one create. A context manager: leaving it before
    :meth:`commit` has returned unlinks all that is temporary.

    ``at_step`` is told each step's name once it is done, in the order of STEPS;
    "merge-begun" is of merges in place alone.
    In order: :meth:`check`, for a Diff :meth:`find_onto`, :meth:`check_space`,
    :meth:`open_memory`, then writing, :meth:`commit`.
    """

    STEPS = (
        *("checked", "memory-opened", "memory-sealed", "state-sealed"),
        *("previous-kept", "merge-begun", "memory-replaced", "state-replaced"),
        "committed",
    )

    def __init__(self, names: Names, at_step: Callable[[str], None]) -> None:
        self._names = names
        self._at_step = at_step
        self._fds: list[int] = []
        self._memory_fd = -1
        self._merging = False
        self._tidied = False
        self._over = False

    @classmethod
    def check(
        cls,
        state_path: str,
        memory_path: str,
        snapshot_id: str,
        in_use: Mapping[str, str] | None = None,
        at_step: Callable[[str], None] = _nothing,
    ) -> SnapshotFiles:
        """Refuse what could not be written; nothing on disk changes.

        ``in_use``: files that must not be overwritten, each with what it is of
        (``{"/srv/root.img": "drive rootfs"}``). The memory file that a VM was
        loaded from need not be among them: its mapping keeps the old file.
        HostError for what the host refuses, ConfigError for what makes no sense.
        """
        state = _check_target(state_path, STATE)
        memory = _check_target(memory_path, MEMORY)
        if _same(state, memory):
            text = f"The state file and the memory file are the same: {memory_path}"
            raise ConfigError(text)
        for target in (state, memory):
            for path, what in (in_use or {}).items():
                if _same(target, path):
                    raise ConfigError(f"{target} is the file of {what}")
        at_step("checked")
        return cls(Names(state, memory, snapshot_id), at_step)

    def check_space(self, memory_bytes: int, state_bytes: int = 1 << 16) -> None:
        """HostError if the file systems have less than these bytes left."""
        names = self._names
        state, memory = os.path.dirname(names.state), os.path.dirname(names.memory)
        full = OSError(errno.ENOSPC, "")
        if _same_device(state, memory):
            memory_bytes += state_bytes
        elif not _has_room(state, state_bytes):
            raise HostError(_text(STATE, "write", full))
        if not _has_room(memory, memory_bytes):
            text = "Cannot write memory file: Cannot dump memory: Guest memory error: "
            raise HostError(text + io_error(full))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._over:
            self._over = True
            discard(self._names)
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    # -- Writing

    async def open_memory(self) -> int:
        """The empty file to write memory to; this object's to close.

        This and :meth:`find_onto` first finish, or clear away, what a killed process
        left of an earlier create to the same names. HostError.
        """
        await self._tidy()
        with _naming(MEMORY, "open"):
            fd = _create(self._names.memory_part, self._names.memory)
            self._fds.append(fd)
            self._memory_fd = fd
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._at_step("memory-opened")
        return fd

    async def _tidy(self) -> None:
        """Before the first lock of ours, which would look like another's."""
        if not self._tidied and interrupted(self._names.state, self._names.memory):
            await trio.to_thread.run_sync(tidy, self._names)
        self._tidied = True

    async def find_onto(
        self, size: int, parent_id: str | None, manifest: MemoryManifest | None
    ) -> Onto | None:
        """The target as what a Diff is merged onto, if it is one.

        It is if it has ``size`` bytes and is the parent's own file: by its id, or
        for want of one (no xattrs, a copy) by its size alone, as Firecracker
        judges. In place only if nobody has it loaded and it has no other name, by which
        somebody keeps it; else into a copy. ``manifest``: the parent's.
        """
        await self._tidy()
        return self._find_onto(size, parent_id, manifest)

    def _find_onto(
        self, size: int, parent_id: str | None, manifest: MemoryManifest | None
    ) -> Onto | None:
        if parent_id is None or not os.path.exists(self._names.memory):
            return None
        with _naming(MEMORY, "open"):
            fd = os.open(self._names.memory, os.O_RDWR | os.O_CLOEXEC)
        self._fds.append(fd)
        known = get_id(fd)
        held = os.fstat(fd)
        if held.st_size != size or known not in (None, parent_id):
            return None
        self._merging = held.st_nlink == 1 and lock(fd, fcntl.LOCK_EX)
        theirs = manifest if known == parent_id else None
        return Onto(BaseFile(fd, theirs), copy=not self._merging)

    async def commit(self, state: bytes) -> None:
        """Memory is written: write the state file, and give both their names.

        Both are made durable first. HostError if something failed and was undone.
        Not to be cancelled in the midst: it is one call in a worker.
        """
        await trio.to_thread.run_sync(self._commit, state)

    def _commit(self, state: bytes) -> None:
        with _naming(STATE, "open"):
            fd = _create(self._names.state_part, self._names.state)
        self._fds.append(fd)
        self._seal_memory()
        self._write_state(fd, state)
        self._rename()

    def _seal_memory(self) -> None:
        """Name the snapshot in its memory file, and make that durable."""
        names, fd = self._names, self._memory_fd
        set_id(fd, names.snapshot_id)
        with _naming(MEMORY, "sync_all"):
            os.fsync(fd)
            sealed = names.journal if self._merging else names.memory_new
            os.rename(names.memory_part, sealed)
            if len(names.folders) > 1:  # within one, names change in their order
                sync_folder(os.path.dirname(sealed))
        self._at_step("memory-sealed")

    def _write_state(self, fd: int, data: bytes) -> None:
        """Write the state file under its temporary name and make it durable."""
        names = self._names
        view = memoryview(data)
        with _naming(STATE, "write"):
            while view:
                view = view[os.write(fd, view) :]
        with _naming(STATE, "sync_all"):
            os.fsync(fd)
            os.rename(names.state_part, names.state_new)
        self._at_step("state-sealed")

    def _rename(self) -> None:
        try:
            finish(self._names, self._at_step)
        except OSError as error:
            self._over = True
            text = _text(MEMORY, "rename", error)
            try:
                undo(self._names)
            except (OSError, HostError):
                text += "; `vmmd snapshot check` can finish it"
            raise HostError(text) from error
        self._over = True
        self._at_step("committed")


# -- Checks


def _check_target(path: str, what: str) -> str:
    """The real path of a target that can be written."""
    with _naming(what, "open"):
        real = os.path.realpath(c_path(path))
        number = errno.ENOENT if not path else _refusal(path, real)
        if number:
            raise OSError(number, "")
    return real


def _refusal(path: str, real: str) -> int:
    """The errno with which a write of this file would fail, or 0."""
    folder, name = os.path.split(real)
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        return errno.ENOTDIR
    number = _refused_file(real)
    if not number and path.endswith("/"):
        number = errno.EISDIR
    if not number and len(os.fsencode(name)) + _ROOM > os.pathconf(
        folder, "PC_NAME_MAX"
    ):
        number = errno.ENAMETOOLONG
    if not number and os.statvfs(folder).f_flag & os.ST_RDONLY:
        number = errno.EROFS
    if not number and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        number = errno.EACCES
    return number


def _refused_file(real: str) -> int:
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    if stat.S_ISSOCK(mode):
        return errno.ENXIO
    if not stat.S_ISREG(mode):
        return errno.EINVAL
    return 0 if os.access(real, os.W_OK, effective_ids=True) else errno.EACCES


def _same(path: str, other: str) -> bool:
    """Whether two paths are one file, also by a link, or would be."""
    if path == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _same_device(folder: str, other: str) -> bool:
    return os.stat(folder).st_dev == os.stat(other).st_dev


def _has_room(folder: str, wanted: int) -> bool:
    held = os.statvfs(folder)
    return not held.f_blocks or held.f_bavail * held.f_frsize >= wanted


# -- Files


def _create(path: str, target: str) -> int:
    """An empty file with the mode and owner of the one it will replace."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666)
    with suppress(OSError):  # there is none, or its owner may do what we may not
        old = os.stat(target)
        os.fchmod(fd, stat.S_IMODE(old.st_mode))
        os.fchown(fd, old.st_uid, old.st_gid)
    return fd


def _text(what: str, operation: str, error: OSError) -> str:
    return f"Cannot perform {operation} on the {what} backing file: {io_error(error)}"


@contextmanager
def _naming(what: str, operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(_text(what, operation, error)) from error
