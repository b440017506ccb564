"""``firecracker --describe-snapshot``: the release that a state file is for."""

from __future__ import annotations

import os

from vmmd.errors import ExitError, SnapshotError
from vmmd.rust import debug_str, io_error, io_error_debug
from vmmd.state.damage import UNREADABLE, UnreadableFileError
from vmmd.state.snapshot import (
    MAX_FILE_SIZE,
    describe_whole,
)

_WHAT = "When printing Snapshot Data format: "
_INVALID = f"{_WHAT}Invalid data format version of snapshot file: "


def data_format(path: str) -> str:
    """The target version in a state file's header, as ``1.5.0``.

    ExitError with Firecracker's texts if there is no such file, or it is none.
    """
    try:
        return describe_whole(_content(path)).target_version
    except UnreadableFileError as error:
        raise _invalid(UNREADABLE, error.debug) from None
    except SnapshotError as error:
        raise _invalid(
            str(error), error.debug or f"Vmmd({debug_str(str(error))})"
        ) from None


def _content(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        text = f"{_WHAT}Unable to open snapshot state file: {io_error(error)}"
        debug = f"OpenSnapshot({io_error_debug(error)})"
        raise ExitError(text, f"PrintSnapshotDataFormat({debug})") from None
    try:
        with open(fd, "rb", closefd=False) as file:
            return file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        text = f"IO Error: {io_error(error)}"
        raise _invalid(text, f"Io({io_error_debug(error)})") from None
    finally:
        os.close(fd)


def _invalid(text: str, debug: str) -> ExitError:
    debug = f"PrintSnapshotDataFormat(SnapshotVersion({debug}))"
    return ExitError(f"{_INVALID}{text}", debug)
