"""A monitor in a child process, its guest's console at hand, a deadline per boot."""

from __future__ import annotations

import base64
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from lab.images import Guest

BOOT_DEADLINE_S = 90.0
QUIET = "console=ttyS0 reboot=k panic=-1 quiet"


def cmdline(verbs: str, *, more: str = "", script: str = "") -> str:
    """A guest's command line: verbs of lab/guest-init.sh, and a script for `run`."""
    words = [QUIET, more, f"vmmd.test={verbs}"]
    if script:
        words.append(f"vmmd.run={base64.b64encode(script.encode()).decode()}")
    return " ".join(word for word in words if word)


def vmmd(
    kernel: Path,
    guest: Guest,
    arguments: str,
    *,
    cpus: int = 1,
    mem: str = "256M",
    more: tuple[str, ...] = (),
) -> list[str]:
    """`vmmd run` with that kernel and the guest's initramfs."""
    return [
        *(sys.executable, "-m", "vmmd", "run", "--kernel", str(kernel)),
        *("--initrd", str(guest.initrd), "--cmdline", arguments),
        *("--cpus", str(cpus), "--mem", mem, *more),
    ]


def qemu_microvm(
    guest: Guest, arguments: str, *, cpus: int = 1, drive: str = ""
) -> list[str]:
    """QEMU's own microVM with this guest; its console on stdin and stdout.

    It gets an RTC: without one a Debian guest waits four seconds for it.
    """
    disk = [
        *("-drive", f"id=root,file={drive},format=raw,if=none"),
        *("-device", "virtio-blk-device,drive=root"),
    ]
    return [
        *("qemu-system-x86_64", "-M", "microvm,accel=kvm,rtc=on", "-cpu", "host"),
        *("-smp", str(cpus), "-m", "256", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(guest.bzimage), "-initrd", str(guest.initrd)),
        *("-append", arguments),
        *(disk if drive else ()),
    ]


@dataclass(slots=True)
class Monitor:
    """A running monitor. As a context it is killed at the end, if it still lives."""

    command: list[str]
    deadline_s: float = BOOT_DEADLINE_S
    output: str = ""
    started: float = field(default_factory=time.monotonic)
    _child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._child = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()

    @property
    def child(self) -> subprocess.Popen[bytes]:
        """The process."""
        if self._child is None:
            raise RuntimeError("not started: use it as a context")
        return self._child

    def send(self, text: str) -> None:
        """Type into the guest's console."""
        if self.child.stdin is None:
            raise RuntimeError("no stdin")
        self.child.stdin.write(text.encode())

    def expect(self, text: str) -> float:
        """Read the console until it has said so; seconds since the start.

        Raises AssertionError with all the guest said, at the deadline or when
        the monitor ends without.
        """
        while text not in self.output:
            if not self._read():
                raise AssertionError(f"no {text!r} in:\n{self.output}")
        return time.monotonic() - self.started

    def finish(self) -> int:
        """Read on until the monitor ends; its exit status."""
        while self._read():
            pass
        return self.child.wait(timeout=self._left_s())

    def _left_s(self) -> float:
        left = self.started + self.deadline_s - time.monotonic()
        if left <= 0:
            text = f"no end within {self.deadline_s} s; the guest said:\n{self.output}"
            raise AssertionError(text)
        return left

    def _read(self) -> bool:
        """Take what the monitor has written; False at its end."""
        if self.child.stdout is None:
            raise RuntimeError("no stdout")
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while not selector.select(self._left_s()):
                pass
        data = os.read(self.child.stdout.fileno(), 65536)
        self.output += data.decode(errors="replace").replace("\r", "")
        return bool(data)


def boot(command: list[str], deadline_s: float = BOOT_DEADLINE_S) -> Monitor:
    """Start a monitor, wait for its end; read ``output`` and ``child.returncode``."""
    with Monitor(command, deadline_s) as monitor:
        monitor.finish()
    return monitor
