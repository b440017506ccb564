"""One microVM's process: its nursery, its signals, its end.

Everything runs in one nursery. It ends when the guest does, when a signal
means death, or when a task raises, which is a bug. In each case the same
teardown runs, shielded: threads stopped and joined, workers back, descriptors
closed, the terminal as it was.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING

import trio

from vmmd.loop import notify
from vmmd.loop.from_file import start_from_file
from vmmd.loop.server import Server
from vmmd.loop.supervisor import Supervisor

if TYPE_CHECKING:
    import socket

    from vmmd.loop.options import Options

SWITCH_INTERVAL_S = 100e-6
FD_TABLE_SIZE = 1024
ANSWER_DEADLINE_S = 1.0
SIGHUP_EXIT_CODE = 156
_DEADLY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(options: Options, listener: socket.socket | None) -> int:
    """Run one microVM to its end; the exit code.

    A signal that means death ends the process by that signal and does not
    return. ExitError if the machine of a config file cannot be started.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _grow_fd_table()
    daemon = _Daemon(options, listener)
    trio.run(daemon.main)
    if daemon.died_of is not None:
        _die(daemon.died_of)
    return daemon.exit_code


def _grow_fd_table() -> None:
    """Make room for every descriptor at once, while there is one thread.

    Each doubling later costs 8 to 20 ms, as the kernel then waits for RCU.
    """
    highest = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, FD_TABLE_SIZE - 1)
    os.close(highest)


def _die(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class _Daemon:
    def __init__(self, options: Options, listener: socket.socket | None) -> None:
        self.exit_code = 0
        self.died_of: signal.Signals | None = None
        self._options = options
        self._listener = listener

    async def main(self) -> None:
        supervisor = Supervisor(self._options)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._watch_signals, nursery.cancel_scope)
                supervisor.nursery = nursery
                await self._serve(supervisor, nursery)
                self.exit_code = await supervisor.wait_end()
                nursery.cancel_scope.cancel()
        finally:
            notify.stopping("stopping")
            with trio.CancelScope(shield=True):
                await supervisor.close()

    async def _serve(self, supervisor: Supervisor, nursery: trio.Nursery) -> None:
        if self._options.config_text is not None:
            await start_from_file(supervisor, self._options.config_text)
        if self._listener is None:
            return
        options = self._options
        server = Server(
            self._listener, supervisor, options.logger, options.max_payload_size
        )
        nursery.start_soon(server.serve, nursery)
        notify.ready("the API is served")

    async def _watch_signals(
        self,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(*_DEADLY) as numbers:
            task_status.started()
            async for number in numbers:
                if number == signal.SIGHUP:
                    self.exit_code = SIGHUP_EXIT_CODE
                else:
                    self.died_of = signal.Signals(number)
                scope.cancel()
