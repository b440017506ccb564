"""One run in the lab: start the host, stream its output, return its status."""

from __future__ import annotations

import argparse
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab import images
from lab.cache import LabError
from lab.host import PORTS, Host, host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

TIMED_OUT = 124
NO_LAB = 125
_PASSED_ON = ("PATH", "CI", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "VIRTUAL_ENV")
_LOG_LINES_SHOWN = 30


class Stopped(Exception):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class Run:
    """What to run in the lab: a command, its surroundings, its bounds."""

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    share: Path | None
    timeout_s: float

    def script(self) -> str:
        """The shell script that the lab host runs."""
        lines = [f"cd {shlex.quote(str(self.folder))} || exit 126"]
        for name, value in sorted(self.environment.items()):
            lines.append(f"export {name}={shlex.quote(value)}")
        lines.append(f"exec {shlex.join(self.command)}")
        return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Streams:
    """The pipes from QEMU's ports; the two outputs are passed on as they come."""

    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    status: bytes = b""

    def open(self) -> list[int]:
        """The writing ends, in the order of PORTS."""
        ends = []
        for name in PORTS:
            reading, writing = os.pipe()
            self.selector.register(reading, selectors.EVENT_READ, name)
            ends.append(writing)
        return ends

    def pass_on(self, until: float) -> bool:
        """Copy output until QEMU has closed the pipes; False if time ran out."""
        while self.selector.get_map():
            left = until - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self.selector.select(left):
                self._take(key.fd, str(key.data))
        return True

    def close(self) -> None:
        """Close the reading ends that are left."""
        for key in [*self.selector.get_map().values()]:
            os.close(key.fd)
        self.selector.close()

    def _take(self, fd: int, name: str) -> None:
        data = os.read(fd, 65536)
        if not data:
            self.selector.unregister(fd)
            os.close(fd)
        elif name == "status":
            self.status += data
        else:
            stream = sys.stdout if name == "stdout" else sys.stderr
            stream.buffer.write(data)
            stream.buffer.flush()


def run(machine: Host, what: Run) -> int:
    """Run it; the command's exit status, or TIMED_OUT, or NO_LAB.

    SIGINT, SIGTERM and SIGHUP end the lab and raise Stopped. The lab ends with
    this process, however that ends.
    """
    session = Path(tempfile.mkdtemp(prefix="vmmd-lab-"))
    streams = _Streams()
    try:
        (session / "command").write_text(what.script())
        status = _run_in(machine, what, session, streams)
    finally:
        streams.close()
        shutil.rmtree(session)
    return status


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What of our environment a command in the lab gets, and ``VMMD_LAB=1``."""
    kept = {name: given[name] for name in _PASSED_ON if name in given}
    ours = {name: text for name, text in given.items() if name.startswith("VMMD_")}
    return {**kept, **ours, "VMMD_LAB": "1", "TMPDIR": "/tmp"}


def _run_in(machine: Host, what: Run, session: Path, streams: _Streams) -> int:
    ends = streams.open()
    command = machine.command(session, what.share, ends)
    # setpriv: QEMU dies with us even if we are killed. A session of its own:
    # Ctrl-C comes to us alone, and we end it in order.
    qemu = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(session / "qemu.log").open("wb"),
        pass_fds=ends,
        start_new_session=True,
    )
    for fd in ends:
        os.close(fd)
    try:
        in_time = streams.pass_on(time.monotonic() + what.timeout_s)
    finally:
        qemu.kill()
        qemu.wait()
    if not in_time:
        _complain(f"no end within {what.timeout_s:g} s: {shlex.join(what.command)}")
        _show_logs(session)
        return TIMED_OUT
    if not streams.status.strip().isdigit():
        _complain("the lab host ended without a status")
        _show_logs(session)
        return NO_LAB
    return int(streams.status)


def _complain(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _show_logs(session: Path) -> None:
    """The last lines of QEMU and of the lab host's console."""
    for name in ("qemu.log", "console.log"):
        if (session / name).exists():
            text = (session / name).read_text(errors="replace")
            lines = [f"  {line}" for line in text.splitlines()[-_LOG_LINES_SHOWN:]]
            print(*lines, sep="\n", file=sys.stderr)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lab/run",
        description="Run CMD in an emulated KVM host with this machine's files.",
        epilog="Files that CMD writes are lost, but those below the shared folder.",
    )
    parser.add_argument("--timeout", type=float, default=600, metavar="S")
    parser.add_argument("--mem", type=int, default=4096, metavar="MIB")
    parser.add_argument("--smp", type=int, default=1, metavar="N")
    parser.add_argument("--share", type=Path, metavar="DIR", help="writable in the lab")
    parser.add_argument(
        "--images", action="store_true", help="make the guest images first"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    found = parser.parse_args(argv)
    if found.command[:1] == ["--"]:
        del found.command[0]
    if not found.command:
        parser.error("no command given")
    if found.share is not None and not found.share.is_dir():
        parser.error(f"--share {found.share}: no such folder")
    return found


def main(argv: list[str]) -> int:
    """Entry of ``lab/run``; its exit status."""
    given = _arguments(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        extra = images.environment() if given.images else {}
        machine = host(given.mem, given.smp)
        share = given.share.resolve() if given.share is not None else None
        surroundings = environment({**os.environ, **extra})
        what = Run(tuple(given.command), Path.cwd(), surroundings, share, given.timeout)
        return run(machine, what)
    except LabError as error:
        _complain(str(error))
        return NO_LAB
    except Stopped as stopped:
        return 128 + stopped.number
