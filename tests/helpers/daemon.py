"""The `firecracker` command in a process of its own, on a real socket."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from tests.helpers.unix_api import UnixApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRECRACKER = (
    "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
)
COMMAND = (sys.executable, "-c", FIRECRACKER)
DEADLINE_S = 30


class Daemon:
    """One process; its output is in files of ``folder``."""

    def __init__(
        self, folder: Path, *arguments: str, stdout: int | None = None
    ) -> None:
        self.folder = folder
        self.sock = folder / "api.sock"
        self._out = (folder / "stdout").open("wb")
        self._err = (folder / "stderr").open("wb")
        api = () if "--no-api" in arguments else ("--api-sock", str(self.sock))
        self.process = subprocess.Popen(
            [*COMMAND, *api, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out if stdout is None else stdout,
            stderr=self._err,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
            cwd=folder,
        )
        self.api = UnixApi(self.sock)

    def wait(self) -> int:
        """The exit code; negative: the signal that it died by."""
        return self.process.wait(DEADLINE_S)

    def stdout(self) -> str:
        """All it printed: log lines and the guest's console."""
        return (self.folder / "stdout").read_text(errors="replace")

    def stderr(self) -> str:
        """What came on standard error."""
        return (self.folder / "stderr").read_text()

    def close(self) -> None:
        """End it if it still lives."""
        self.api.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()


@contextmanager
def daemon(
    folder: Path, *arguments: str, stdout: int | None = None
) -> Iterator[Daemon]:
    """A process that is ended at the end."""
    with closing(Daemon(folder, *arguments, stdout=stdout)) as running:
        yield running
