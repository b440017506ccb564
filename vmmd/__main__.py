"""Entry points of the two commands.

``firecracker`` is Firecracker to every client; ``vmmd`` has commands of its
own. Neither imports more than it needs: what a machine needs is loaded once
its socket listens, and a command of ``vmmd`` once it is asked for.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from vmmd import FIRECRACKER_VERSION, __version__

COMMANDS = {
    "run": "boot one microVM, or restore a snapshot, its console on this terminal",
    "snapshot": "make snapshots, look at them, translate, merge and check them",
    "doctor": "say what this host can do and what to do about what is missing",
}
_USAGE_EXIT_CODE = 2


def firecracker() -> int:
    """The ``firecracker`` command. Returns the exit code."""
    gc.disable()  # what is imported stays; it is enabled once the daemon runs
    _open_stdio()
    _become("firecracker")
    from vmmd.cli.firecracker import main

    return main(sys.argv[1:])


def vmmd() -> int:
    """The ``vmmd`` command. Returns the exit code."""
    _open_stdio()
    _become("vmmd")
    match sys.argv[1:]:
        case ["--version" | "version", *_]:
            print(f"vmmd {__version__} (Firecracker API v{FIRECRACKER_VERSION})")
            return 0
        case [] | ["--help" | "-h" | "help", *_]:
            print(_usage())
            return 0
        case [name, *rest] if name in COMMANDS:
            from importlib import import_module

            return int(import_module(f"vmmd.cli.{name}").main(rest))
        case [name, *_]:
            print(f"vmmd: no command '{name}'\n\n{_usage()}", file=sys.stderr)
    return _USAGE_EXIT_CODE


def _open_stdio() -> None:
    """Put /dev/null where a descriptor 0, 1 or 2 was not given.

    Else the next file that is opened would be the console.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}   {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: vmmd COMMAND [ARGUMENT ...]", "", *lines])


def _become(name: str) -> None:
    """Take the name that clients look for, and die of SIGINT as they expect."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # a jail without /proc: the name stays the interpreter's
    try:
        os.write(fd, name.encode())
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(vmmd())
