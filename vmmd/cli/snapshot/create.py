"""``vmmd snapshot create``: save a running VM into a folder."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import OK, Command, Meter, show, size_text
from vmmd.cli.snapshot.files import folder
from vmmd.client import Client
from vmmd.errors import ConfigError, VmmdError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from vmmd.cli.snapshot.files import Pair

_LOOK_S = 0.1
_BLOCK = 512  # bytes of st_blocks' unit


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "create",
        "Save a VM into DIR: vm.state and vm.mem. A running guest is paused meanwhile "
        "and goes on after, whatever comes of it; what is there is replaced last.",
        "is not used",
    )
    add = command.parser.add_argument
    add("socket", metavar="SOCKET", help="the VM's API socket")
    add("folder", metavar="DIR", help="where to; made if it is not there")
    add(
        "--diff",
        action="store_true",
        help="only the pages written since the last snapshot, merged into DIR's "
        "memory file if that is the last snapshot's",
    )
    add("--target", metavar="VERSION", help="the release to write it for: 1.5.0")
    return command.run(argv, _create)


def _create(arguments: argparse.Namespace) -> int:
    files = folder(os.path.abspath(arguments.folder))
    with Client(arguments.socket) as client:
        if (phase := client.state()) == "Not started":
            raise ConfigError(f"{arguments.socket}: the VM is not started yet")
        os.makedirs(files.name, exist_ok=True)
        started_s = time.monotonic()
        with _paused(client, phase), _progress(arguments.socket):
            client.create_snapshot(
                files.state,
                files.memory,
                diff=arguments.diff,
                version=arguments.target,
            )
        took_s = time.monotonic() - started_s
    kind = "diff" if arguments.diff else "full"
    show(f"{kind} snapshot in {arguments.folder}, guest paused for {took_s:.2f} s")
    for line in _sizes(files):
        show(line)
    return OK


def _sizes(files: Pair) -> Iterator[str]:
    """What is on disk, if the VM's files can be seen from here."""
    try:
        state, memory = os.stat(files.state), os.stat(files.memory)
    except OSError:
        return
    yield f"  vm.state  {size_text(state.st_size)}"
    used = size_text(memory.st_blocks * _BLOCK)
    yield f"  vm.mem    {size_text(memory.st_size)}, {used} on disk"


@contextmanager
def _paused(client: Client, phase: str) -> Iterator[None]:
    """A running guest is paused, and goes on at the end, also if we are stopped.

    The VM ends what it has begun before it does so.
    """
    if phase == "Paused":
        yield
        return
    _on_signals(_stop)
    try:
        client.pause()
        yield
    except _Stopped:
        client.close()  # there the answer is still to come
        raise
    finally:
        _on_signals(signal.SIG_IGN)
        client.resume()


class _Stopped(VmmdError):
    """The command is to end."""


def _stop(number: int, _frame: object) -> None:
    _on_signals(signal.SIG_IGN)
    name = signal.Signals(number).name
    raise _Stopped(f"{name}: the VM ends what it has begun, then the guest goes on")


def _on_signals(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


@contextmanager
def _progress(socket: str) -> Iterator[None]:
    """Ask over a connection of our own how far it is, and say so."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(socket, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(socket: str, over: threading.Event) -> None:
    meter = Meter("writing memory")
    try:
        with Client(socket, timeout_s=1.0) as client:
            while not over.wait(_LOOK_S):
                shown = client.get("/vmmd/snapshot/progress")
                done, size = shown.get("done_bytes"), shown.get("size_bytes")
                if isinstance(done, int) and isinstance(size, int):
                    meter(done, size)
    except VmmdError:
        pass  # a VM that does not tell, or has gone: the create itself says so
    finally:
        meter.close()
