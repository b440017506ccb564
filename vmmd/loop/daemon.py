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
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from vmmd.actions import LoadSnapshot
from vmmd.errors import ConfigError, ExitError
from vmmd.loop import notify
from vmmd.loop.from_file import fill_metadata, start_from_file
from vmmd.loop.preload import preload
from vmmd.loop.server import Server
from vmmd.loop.signals import EXIT_CODES, SIGPIPE, log_signal
from vmmd.loop.supervisor import Supervisor

if TYPE_CHECKING:
    import socket

    from vmmd.http.tally import Tally
    from vmmd.loop.options import Options
    from vmmd.snapshot_params import SnapshotLoadParams

SWITCH_INTERVAL_S = 100e-6
FD_TABLE_SIZE = 1024
ANSWER_DEADLINE_S = 1.0  # for replies that are owed when the guest has ended
LOST_DATA_EXIT_CODE = 1
_DEADLY = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (*_DEADLY, *EXIT_CODES, SIGPIPE)


def run(options: Options, listener: socket.socket | None) -> int:
    """Run one microVM to its end; the exit code.

    A signal that means death ends the process, by that signal or with the code
    that clients know for it, and does not return. ExitError if the machine of a
    config file cannot be started.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _grow_fd_table()
    daemon = _Daemon(options, listener)
    trio.run(daemon.main)
    if daemon.failure is not None:
        raise daemon.failure
    if daemon.died_of is not None:
        _die(daemon.died_of)
    return daemon.exit_code


def _grow_fd_table() -> None:
    """Make room for every descriptor at once, while there is one thread.

    Each doubling later costs 8 to 20 ms, as the kernel then waits for RCU. Where
    fewer are allowed there is nothing to do.
    """
    with suppress(OSError):
        os.close(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, FD_TABLE_SIZE - 1))


async def _restore(supervisor: Supervisor, params: SnapshotLoadParams) -> None:
    """Go on from a snapshot. ExitError, whose cause says why it cannot be."""
    from vmmd.loop.snapshots import perform  # a boot does not need it

    try:
        await perform(supervisor, LoadSnapshot(params))
    except ConfigError as error:
        raise ExitError(str(error), "BuildMicroVmError(Restore)") from error


def _die(number: int) -> None:
    if (code := EXIT_CODES.get(number)) is not None:
        os._exit(code)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class _Daemon:
    def __init__(self, options: Options, listener: socket.socket | None) -> None:
        self.exit_code = 0
        self.died_of: int | None = None
        self.failure: ExitError | None = None
        self._options = options
        self._listener = listener

    async def main(self) -> None:
        supervisor = Supervisor(self._options)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    self._watch_signals, nursery.cancel_scope, supervisor.metrics.tally
                )
                supervisor.nursery = nursery
                try:
                    server = await self._serve(supervisor, nursery)
                    await self._wait_end(supervisor, server)
                except ExitError as error:
                    self.failure = error
                nursery.cancel_scope.cancel()
        finally:
            notify.stopping("stopping")
            with trio.CancelScope(shield=True):
                if not await supervisor.close():
                    self.exit_code = self.exit_code or LOST_DATA_EXIT_CODE

    async def _wait_end(self, supervisor: Supervisor, server: Server | None) -> None:
        """Wait for the guest's end, and until every reply that is owed is sent."""
        try:
            self.exit_code = await supervisor.wait_end()
        finally:
            if server is not None:
                with trio.move_on_after(ANSWER_DEADLINE_S):
                    await server.answered()

    async def _serve(
        self, supervisor: Supervisor, nursery: trio.Nursery
    ) -> Server | None:
        """Serve the API, if there is to be one, and start what a file describes."""
        options, server = self._options, None
        if self._listener is not None:
            limit = options.max_payload_size
            tally = supervisor.metrics.tally
            server = Server(self._listener, supervisor, options.logger, limit, tally)
            await nursery.start(server.serve, nursery)
            if options.waits_for_requests:
                nursery.start_soon(preload, server, supervisor)
        if options.config_text is not None:
            await start_from_file(supervisor, options.config_text)
        elif options.restore is not None:
            await _restore(supervisor, options.restore)
        else:
            fill_metadata(supervisor)
        supervisor.configured()
        notify.ready("the API is served" if server else "running")
        return server

    async def _watch_signals(
        self,
        scope: trio.CancelScope,
        tally: Tally,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(*_WATCHED) as numbers:
            task_status.started()
            async for number in numbers:
                if number not in _DEADLY:
                    tally.signal(signal.Signals(number).name)
                    log_signal(self._options.logger, number)
                if number != SIGPIPE:
                    self.died_of = number
                    scope.cancel()
