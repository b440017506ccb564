"""The last steps of a snapshot create, and how to finish or undo them.

The names around a state file S and a memory file M, for a snapshot ID:

    .S.ID.part  .M.ID.part   being written: of no use to anybody
    .S.ID.new   .M.ID.new    complete and durable
    .M.ID.merge              complete: pages to merge into M in place
    .M.ID.merging            the same, and the merge has begun
    .S.ID.prev  .M.ID.prev   what stood at the names before

``.S.ID.new`` is made last of the complete ones and renamed to S last of all, so
while it exists the create can be finished; until M is merged in place it can also
be undone. Without it there is nothing to finish: the create was abandoned before,
or is complete. Every step may be done again. ``.S.ID.part`` is there before any of
memory's complete ones, and goes after them: see :func:`stray`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.memory_file import merge_journal, reserve_journal
from vmmd.loop.origin import ID_XATTR, get_id, lock
from vmmd.rust import io_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STRAY = (
    "{0}: snapshot {1.snapshot_id} of it was interrupted, with another {2} file: "
    "`vmmd snapshot check` of its own two files ends it"
)
_TEMPORARY = ("part", "new", "merge", "merging", "prev")


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one create uses; real paths."""

    state: str
    memory: str
    snapshot_id: str

    def _beside(self, path: str, suffix: str) -> str:
        folder, name = os.path.split(path)
        return os.path.join(folder, f".{name}.{self.snapshot_id}.{suffix}")

    @property
    def state_part(self) -> str:
        """The state file while it is written."""
        return self._beside(self.state, "part")

    @property
    def state_new(self) -> str:
        """The complete state file."""
        return self._beside(self.state, "new")

    @property
    def state_previous(self) -> str:
        """What was the state file before."""
        return self._beside(self.state, "prev")

    @property
    def memory_part(self) -> str:
        """The memory file, or journal, while it is written."""
        return self._beside(self.memory, "part")

    @property
    def memory_new(self) -> str:
        """The complete memory file."""
        return self._beside(self.memory, "new")

    @property
    def journal(self) -> str:
        """The complete journal of a merge in place."""
        return self._beside(self.memory, "merge")

    @property
    def merging(self) -> str:
        """The journal from when its merge has begun."""
        return self._beside(self.memory, "merging")

    @property
    def merges(self) -> tuple[str, str]:
        """The journal's names once it is complete."""
        return self.journal, self.merging

    @property
    def memory_previous(self) -> str:
        """What was the memory file before."""
        return self._beside(self.memory, "prev")

    @property
    def memory_complete(self) -> tuple[str, ...]:
        """The names under which there is memory that somebody may want."""
        return (self.memory_new, *self.merges, self.memory_previous)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders to make durable."""
        return tuple({os.path.dirname(self.state), os.path.dirname(self.memory)})


def _nothing(step: str) -> None:
    """Nobody watches the steps."""


def finish(names: Names, at_step: Callable[[str], None] = _nothing) -> None:
    """Go on from wherever the commit stands to its end. OSError from the files."""
    if os.path.exists(names.state_new):
        _sync_folders(names)
        if os.path.exists(names.state):
            os.rename(names.state, names.state_previous)
            _sync_folders(names)
        at_step("previous-kept")
        if os.path.exists(names.journal):
            _begin_merge(names)
            at_step("merge-begun")
        if os.path.exists(names.merging):
            _merge(names)
        elif os.path.exists(names.memory_new):
            _keep_memory(names)
            os.rename(names.memory_new, names.memory)
            _sync_folders(names)
        at_step("memory-replaced")
        os.rename(names.state_new, names.state)
        _sync_folders(names)
        at_step("state-replaced")
    discard(names)
    if os.path.exists(names.state):
        _unlink(names.state_previous)


def finish_left(names: Names) -> str | None:
    """Finish what a killed process left; else undo it, and say why.

    A merge in place is finished under a lock: a VM may have loaded the memory file
    since, and would see it change, as would a hard link. HostError if a VM has and
    the merge has begun; OSError from the files.
    """
    if can_finish(names) and _lost_memory(names):
        undo(names)
        return "its memory is gone"
    if not can_finish(names) or not any(map(os.path.exists, names.merges)):
        finish(names)
        return None
    begun = os.path.exists(names.merging)
    with _open(names.memory, os.O_RDWR) as fd:
        if lock(fd, fcntl.LOCK_EX) and (begun or os.fstat(fd).st_nlink == 1):
            finish(names)
            return None
    if begun:
        text = "a VM runs from it, and a merge into it has begun: end the VM, then "
        raise HostError(f"{names.memory}: {text}`vmmd snapshot check` finishes it")
    undo(names)
    return "a VM runs from the one before, or a link keeps it"


def _lost_memory(names: Names) -> bool:
    """Whether neither the new memory is there, nor M the new one.

    So a power loss may leave it, and an undo that was killed.
    """
    new = any(map(os.path.exists, (names.memory_new, *names.merges)))
    return not new and not _is_new(names)


def undo(names: Names) -> None:
    """Go back to what was before, but for what is complete. OSError from the files.

    HostError if a merge in place has begun, which can only be finished.
    """
    if can_finish(names) and os.path.exists(names.merging):
        raise HostError(f"{names.memory}: the merge has begun, finish it instead")
    if os.path.exists(names.state_new):
        _take_memory_back(names)
        if os.path.exists(names.state_previous) and not os.path.exists(names.state):
            os.rename(names.state_previous, names.state)
        _sync_folders(names)
    elif os.path.exists(names.state):
        _unlink(names.state_previous)  # the commit was over
    discard(names)


def _take_memory_back(names: Names) -> None:
    """The new memory goes under ``.part`` again, which says that this has begun."""
    before = (names.memory_part, names.memory_new, names.journal)
    if not any(map(os.path.exists, before)) and _is_new(names):
        os.rename(names.memory, names.memory_part)
    if os.path.exists(names.memory_previous):
        os.rename(names.memory_previous, names.memory)


def discard(names: Names) -> None:
    """Unlink all that is temporary. Before or after the commit, not within."""
    with suppress(FileNotFoundError):
        os.rename(names.state_new, names.state_part)  # no more to be finished
    for path in (names.memory_part, *names.memory_complete):
        _unlink(path)
    _unlink(names.state_part)  # the last: memory is never left without it


def interrupted(state: str, memory: str) -> tuple[Names, ...]:
    """The creates to these files of which something is left, by their names."""
    found, real = set(), (os.path.realpath(state), os.path.realpath(memory))
    for path in real:
        folder, name = os.path.split(path)
        for entry in os.listdir(folder):
            middle, _, suffix = entry.rpartition(".")
            if middle.startswith(f".{name}.") and suffix in _TEMPORARY:
                found.add(middle.removeprefix(f".{name}."))
    # An id has no dot: that is a file of a target with a longer name.
    found = {snapshot_id for snapshot_id in found if "." not in snapshot_id}
    return tuple(Names(*real, snapshot_id) for snapshot_id in sorted(found))


def stray(names: Names) -> str | None:
    """Why these cannot be the two files of the create that was interrupted.

    Its other half lies beside another file then, and would be lost. None if they
    can. Without a state file before, what is left of memory once the create is
    complete looks the same: its own state file at its name tells.
    """
    states = (names.state_part, names.state_new, names.state_previous)
    memories = (names.memory_part, *names.memory_complete)
    if not any(map(os.path.exists, states)):
        lost = any(map(os.path.exists, names.memory_complete))
        return _STRAY.format(names.memory, names, "state") if lost else None
    here = any(map(os.path.exists, memories)) or _is_new(names)
    if here or not can_finish(names):
        return None
    return _STRAY.format(names.state, names, "memory")


def _is_new(names: Names) -> bool:
    """Whether the memory file is this snapshot's, as far as can be told."""
    own = (None, names.snapshot_id)
    return os.path.exists(names.memory) and get_id(names.memory) in own


def can_finish(names: Names) -> bool:
    """Whether the create is complete but for its commit."""
    return os.path.exists(names.state_new)


def tidy(names: Names) -> None:
    """Finish or clear away earlier creates to the same files.

    HostError if one is under way in another process, or cannot be finished.
    """
    for left in interrupted(names.state, names.memory):
        if left.snapshot_id == names.snapshot_id:
            continue
        if is_alive(left):
            raise HostError(f"{left.memory}: another snapshot is being written to it")
        if other := stray(left):
            raise HostError(other)
        try:
            finish_left(left)
        except OSError as error:
            text = f"{left.memory}: an interrupted snapshot cannot be finished: "
            raise HostError(text + io_error(error)) from error


def is_alive(names: Names) -> bool:
    """Whether the process that writes these files still lives: it holds a lock."""
    held = (names.memory_part, names.memory_new, names.journal, names.merging)
    return any(_is_locked(path) for path in (*held, names.memory))


def _is_locked(path: str) -> bool:
    try:
        with _open(path, os.O_RDONLY) as fd:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is not there, or the file system has no locks
        return False
    return False


def set_id(fd: int, snapshot_id: str) -> None:
    """Name the snapshot in its memory file, where there are xattrs."""
    with suppress(OSError):
        os.setxattr(fd, ID_XATTR, snapshot_id.encode("ascii"))


def _begin_merge(names: Names) -> None:
    """The last moment at which a merge in place can be refused: for no space."""
    with (
        _open(names.journal, os.O_RDONLY) as journal,
        _open(names.memory, os.O_RDWR) as target,
    ):
        reserve_journal(journal, target, os.fstat(target).st_size)
    os.rename(names.journal, names.merging)
    _sync_folders(names)


def _merge(names: Names) -> None:
    """Carry the journal out. The id first: no other state file fits from here."""
    with (
        _open(names.merging, os.O_RDONLY) as journal,
        _open(names.memory, os.O_RDWR) as target,
    ):
        set_id(target, names.snapshot_id)
        os.fsync(target)
        merge_journal(journal, target, os.fstat(target).st_size)
        os.fsync(target)


@contextmanager
def _open(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _keep_memory(names: Names) -> None:
    """Keep the old memory file under another name, also at its own if possible."""
    if not os.path.exists(names.memory) or os.path.exists(names.memory_previous):
        return
    try:
        os.link(names.memory, names.memory_previous)
    except OSError:  # a file system without links
        os.rename(names.memory, names.memory_previous)


def _sync_folders(names: Names) -> None:
    for folder in names.folders:
        sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable. OSError."""
    with _open(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
