"""The demo's network: one tap, made by hand as anybody would, and ssh over it."""

from __future__ import annotations

import os
import shlex
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from demo.process import DemoError, show
from vmmd.cli.nat import may_administer

if TYPE_CHECKING:
    from collections.abc import Iterator

TAP = "vmmd-demo"
HOST = "10.214.0.1"
GUEST = "10.214.0.2"
IP_ARGUMENT = f"vmmd.ip={GUEST}/24,{HOST}"
"""Tells the guest's init the address."""

_UP = (
    f"ip tuntap add dev {TAP} mode tap",
    f"ip addr add {HOST}/24 dev {TAP}",
    f"ip link set {TAP} up",
)
_DEADLINE_S = 60
# The guest is made anew each time: its host key is nobody's to remember.
_OPTIONS = (
    *("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"),
    *("-oLogLevel=ERROR", "-oBatchMode=yes", f"-oConnectTimeout={_DEADLINE_S}"),
)


@contextmanager
def tap() -> Iterator[bool]:
    """A tap that is up, for the length of the block; False if we may not make one."""
    if not may_administer(Path("/proc/self/status").read_text()):
        show("\nNot root: no tap, so the guest has no network here, and no ssh.")
        yield False
        return
    show("\nA tap for the guest:")
    try:
        for command in _UP:
            show(f"$ {command}")
            _run(command.split())
        yield True
    finally:
        subprocess.run(["ip", "link", "del", TAP], env=_tools(), capture_output=True)


def ssh(key: Path, command: str) -> str:
    """Log in as root, run a command, show and return what it says. DemoError."""
    words = ["-i", str(key), f"root@{GUEST}", command]
    show(f"\n$ ssh {shlex.join(words)}")
    text = _run(["ssh", *_OPTIONS, *words])
    show("\n".join(f"  {line}" for line in text.splitlines()))
    return text


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        env=_tools(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
    )
    if done.returncode:
        raise DemoError(done.stderr.strip() or f"{command[0]} ended badly")
    return done.stdout


def _tools() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
