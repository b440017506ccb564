"""Where the lab keeps what is slow to make: kernels and images.

An entry is a folder, made under a temporary name and renamed, so that what can
be seen is whole. Its name holds everything it depends on (package versions, a
digest of its recipe), so that it is never stale. One lock lets two processes
ask for the same entry and make it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent


class LabError(Exception):
    """The lab cannot be made or did not come up; the text says what would help."""


def say(text: str) -> None:
    """One line of progress, on stderr."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def folder() -> Path:
    """``${XDG_CACHE_HOME:-~/.cache}/vmmd``, made if it was not there."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "vmmd"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(files: tuple[str, ...], *words: str) -> str:
    """Twelve hex digits of the recipe: files beside this one (or absolute) and words."""
    total = hashlib.sha256("\0".join(words).encode())
    for name in files:
        total.update(hashlib.sha256((HERE / name).read_bytes()).digest())
    return total.hexdigest()[:12]


def entry(name: str, build: Callable[[Path], None]) -> Path:
    """The entry of that name; ``build(empty_folder)`` fills it if it is not there."""
    path = folder() / name
    if path.is_dir():
        return path
    with _locked():
        if path.is_dir():
            return path
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder()))
        try:
            build(work)
            work.chmod(0o755)
            work.rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return path


@contextmanager
def _locked() -> Iterator[None]:
    """One builder at a time; the kernel drops the lock if its holder dies."""
    with (folder() / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
