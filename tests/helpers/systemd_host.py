"""A systemd of the test's own: process 1 of new namespaces, its cgroup its whole tree.

It is the real one, with the real journal; what it may start is what the test gives
it. Needs root, a cgroup2 hierarchy and overlayfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.poll import until
from tests.helpers.program import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_INIT = Path(__file__).with_suffix(".sh")
_JOURNAL = ("systemd-journald.service", "systemd-journald.socket")
_TARGETS = ("basic", "sysinit", "network", "shutdown")
_UNSHARE = "--pid --mount --uts --ipc --cgroup --fork --mount-proc --kill-child"
_DEADLINE_S = 60


@dataclass(frozen=True)
class SystemdHost:
    """``pid`` is its process 1, as the test sees it."""

    pid: int

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command in its namespaces, whatever its exit code."""
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--", *argv],
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )

    def output(self, *argv: str) -> str:
        """What a command prints; AssertionError with its complaint if it fails."""
        done = self.run(*argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.output("systemctl", "show", unit, "--value", "-p", name).strip()

    def write(self, path: str, data: bytes) -> None:
        """A file of its /etc, /usr/bin, /opt or /run."""
        Path(f"/proc/{self.pid}/root{path}").write_bytes(data)


@contextmanager
def systemd_host(folder: Path, *units: Path) -> Iterator[SystemdHost]:
    """With these units and the journal, up; all its processes end with it."""
    init = (_INIT, _unit_folder(folder, units), ROOT, sys.prefix)
    with _cgroup() as cgroup, (folder / "systemd.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", *_UNSHARE.split(), "sh", *map(str, init)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Before it unshares: the new cgroup namespace begins where it then is.
            preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())),
        )
        try:
            yield _booted(process, folder / "systemd.log")
        finally:
            process.kill()  # the kernel ends its child, and with process 1 all others
            process.wait()


def _unit_folder(folder: Path, units: tuple[Path, ...]) -> Path:
    made = folder / "units"
    made.mkdir()
    for name in _TARGETS:
        text = f"[Unit]\nDescription={name}\nDefaultDependencies=no\n"
        (made / f"{name}.target").write_text(text)
    for unit in (*units, *(Path("/lib/systemd/system") / name for name in _JOURNAL)):
        shutil.copy(unit, made)
    return made


def _booted(process: subprocess.Popen[bytes], log: Path) -> SystemdHost:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def running() -> bool:
        assert process.poll() is None, log.read_text()
        pids = children.read_text().split()
        if not pids or not _is_systemd(pids[0]):
            return False
        asked = SystemdHost(int(pids[0])).run("systemctl", "is-system-running")
        return asked.stdout == "running\n"

    until(running, _DEADLINE_S)
    host = SystemdHost(int(children.read_text()))
    host.output("systemctl", "start", "systemd-journald.service")
    return host


def _is_systemd(pid: str) -> bool:
    """Until it is, what lies at /run is the host's: systemctl would ask its systemd."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "systemd\n"
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended: its parent will, and tells


@contextmanager
def _cgroup() -> Iterator[Path]:
    """A cgroup2 of its own, gone with all that it came to hold."""
    mounts = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
    tops = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    if not tops:
        raise RuntimeError(
            "a systemd needs a cgroup2 mount; /proc/self/mounts has none"
        )
    made = Path(tempfile.mkdtemp(prefix="vmmd-test-", dir=tops[0]))
    try:
        yield made
    finally:
        until(lambda: "populated 0" in (made / "cgroup.events").read_text())
        for folder, _, _ in os.walk(made, topdown=False):
            Path(folder).rmdir()
