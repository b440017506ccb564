"""The demo's end: a guest is saved, its monitor killed, and it goes on in another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.process import Curl, DemoError, Monitor, show

if TYPE_CHECKING:
    from pathlib import Path

    from demo.screen import Times

_WORD = "remembered"
_PROMPT = "# "


def save(curl: Curl, monitor: Monitor, folder: Path, times: Times) -> None:
    """Give the guest's shell something to remember, and save it into ``folder``."""
    at = monitor.length
    monitor.type(f"word={_WORD}")
    monitor.expect(_PROMPT, at + 1)
    curl("PATCH", "/vm", {"state": "Paused"})
    body = {
        "snapshot_path": str(folder / "vm.state"),
        "mem_file_path": str(folder / "vm.mem"),
    }
    with times.measure("a snapshot of the guest"):
        curl("PUT", "/snapshot/create", body)


def restore(curl: Curl, monitor: Monitor, folder: Path, times: Times) -> None:
    """Let it go on under another monitor. DemoError if it has forgotten the word."""
    backend = {"backend_type": "File", "backend_path": str(folder / "vm.mem")}
    body = {
        "snapshot_path": str(folder / "vm.state"),
        "mem_backend": backend,
        "resume_vm": True,
    }
    with times.measure("the guest goes on: load answered"):
        curl("PUT", "/snapshot/load", body)
    with times.measure("  and it answers"):
        monitor.type("echo this was $word")
        at = monitor.expect(f"this was {_WORD}")
    monitor.expect(_PROMPT, at)


def check_killed(status: int) -> None:
    """The first monitor was killed, not asked. DemoError: it ended by itself."""
    if status != -9:
        raise DemoError(f"the first monitor ended with {status}")
    show("\n(The monitor was killed by SIGKILL; the files are all that is left.)")
