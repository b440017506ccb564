"""The files of snapshots, as the commands are given them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmmd.errors import HostError, SnapshotError
from vmmd.loop.commit import interrupted
from vmmd.state.damage import ForeignFileError
from vmmd.state.snapshot import (
    FORMAT,
    MAX_FILE_SIZE,
    decode,
    describe,
)

if TYPE_CHECKING:
    from vmmd.state.snapshot import SnapshotFile

STATE_NAME, MEMORY_NAME = "vm.state", "vm.mem"
PAIR_HELP = f"a folder with {STATE_NAME} and {MEMORY_NAME}, or STATE:MEM"


@dataclass(frozen=True, slots=True)
class Pair:
    """The paths of a snapshot's two files; ``name`` is how it was given."""

    name: str
    state: str
    memory: str


def pair(text: str) -> Pair:
    """A folder, or two paths with a colon between."""
    state, colon, memory = text.partition(":")
    if colon and not os.path.isdir(text):
        return Pair(text, state, memory)
    return folder(text)


def folder(path: str) -> Pair:
    """The two files of a folder, which need not be there."""
    return Pair(path, os.path.join(path, STATE_NAME), os.path.join(path, MEMORY_NAME))


def pair_of(words: list[str]) -> Pair:
    """``DIR``, or ``STATE MEM``."""
    return pair(words[0]) if len(words) == 1 else Pair(words[0], words[0], words[1])


def content(path: str) -> bytes:
    """A state file's bytes, or as many as show that it is too long. OSError."""
    with open(path, "rb") as file:
        return file.read(MAX_FILE_SIZE + 1)


def load(path: str) -> SnapshotFile:
    """A state file. SnapshotError or HostError: the file, what, the way out."""
    try:
        data = content(path)
    except FileNotFoundError:
        raise HostError(f"{path}: there is no such file{_left_over(path)}") from None
    try:
        return decode(data)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}{_way_out(data, error)}") from error


def _left_over(path: str) -> str:
    """Whether a create left it under another name."""
    place = os.path.dirname(os.path.realpath(path))
    memory = os.path.join(place, MEMORY_NAME)
    if os.path.isdir(place) and interrupted(path, memory):
        return f"; a create was interrupted: `vmmd snapshot check {place}` ends it"
    return ""


def _way_out(data: bytes, error: SnapshotError) -> str:
    if isinstance(error, ForeignFileError):
        return "; give the state file, not the memory file nor one of Firecracker's"
    try:
        header = describe(data)
    except SnapshotError:
        return "; it is damaged: take an earlier snapshot"
    if header.format > FORMAT:
        made = f"it was made by {header.producer} {header.producer_version}"
        return f"; {made}: use that one, or `vmmd snapshot inspect`"
    return "; it is damaged: `vmmd snapshot inspect` shows what can be read"


def write(path: str, data: bytes) -> None:
    """Replace a file, or leave it as it was. OSError."""
    place, name = os.path.split(os.path.realpath(path))
    temporary = os.path.join(place, f".{name}.{os.urandom(6).hex()}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, os.path.join(place, name))
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
