"""Where the metrics go: a line of JSON at the start, every minute, when asked, at the end.

A line that does not fit now (nobody reads the FIFO) is counted as missed; what it
would have told stays for the next.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import trio

from vmmd.errors import ConfigError
from vmmd.http.tally import Tally
from vmmd.resources.fault import ResourceFault, RustError
from vmmd.rust import c_path, debug_str, io_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmmd.loop.board import Board
    from vmmd.loop.metadata import Metadata
    from vmmd.loop.options import Options
    from vmmd.metrics import Tree

PERIOD_S = 60
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_BAD_INPUT = "Cannot initialize the metrics system due to bad user input: "
_TWICE = "Reinitialization of metrics not allowed."


class MetricsFile:
    """A file, made if need be, or a FIFO. Raises OSError where that cannot be."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(c_path(path), _OPEN_FLAGS, 0o666)
        self._rest = b""

    def write(self, line: bytes) -> None:
        """Write a line, or none of it: OSError. Never waits.

        What a FIFO took a part of is whole when there is room again.
        """
        while self._rest:
            self._rest = self._rest[os.write(self._fd, self._rest) :]
        self._rest = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class Metrics:
    """One per process. ``tally`` counts what no device does."""

    def __init__(self, options: Options) -> None:
        self.tally = Tally()
        self._logger = options.logger
        self._log = options.logger.channel("main", "vmm::logger").error
        self._file: MetricsFile | None = None
        self._missed = 0
        self._before: Tree = {}
        self._board: Board | None = None
        self._metadata: Metadata | None = None
        self._started_up(options)
        if options.metrics_path is not None:
            self.open(options.metrics_path)

    def _started_up(self, options: Options) -> None:
        counts = self.tally.counts
        if options.start_time_us is not None:
            took_us = time.monotonic_ns() // 1000 - options.start_time_us
            counts["api_server", "process_startup_time_us"] = took_us
        if options.start_time_cpu_us is not None:
            cpu_us = time.process_time_ns() // 1000 - options.start_time_cpu_us
            cpu_us += options.parent_cpu_time_us or 0
            counts["api_server", "process_startup_time_cpu_us"] = cpu_us

    def open(self, path: str) -> None:
        """Write to ``path`` from now on.

        ResourceFault the second time, or if it cannot be opened.
        """
        try:
            file = MetricsFile(path)
        except OSError as error:
            raise _fault(io_error(error)) from error
        if self._file is not None:
            file.close()
            raise _fault(_TWICE)
        self._file = file

    def begin(self, board: Board, metadata: Metadata | None) -> None:
        """There is a guest to tell of from now on: flush."""
        self._board, self._metadata = board, metadata
        self._flush_or_miss()

    async def flush_for_ever(self) -> None:
        """Flush every minute, if anybody wants it; no file can come any more."""
        while self._file is not None:
            await trio.sleep(PERIOD_S)
            self._flush_or_miss()

    def flush(self) -> None:
        """Write a line, if anybody wants it. ConfigError if it cannot be written."""
        if self._board is None:
            return
        try:
            self._write()
        except OSError as error:
            self._missed += 1
            text = f"Internal VMM error: Metrics error: {io_error(error)}"
            raise ConfigError(text) from error

    def close(self) -> None:
        """Flush a last time. The board is still there, if there was one.

        Without one there is nothing to tell, but for the signal that ends it.
        """
        if self._board is not None or self.tally.has_died:
            self._flush_or_miss(" while stopping")
        if self._file is not None:
            self._file.close()
            self._file = None

    def _flush_or_miss(self, when: str = "") -> None:
        try:
            self._write()
        except OSError as error:
            self._missed += 1
            self._log(f"Failed to write metrics{when}: {io_error(error)}")

    def _write(self) -> None:
        if self._file is None:
            return
        from vmmd.metrics import since, tree  # only who wants them pays for them

        devices = _devices(self._board) if self._board else ()
        now = tree(time.time_ns() // 1_000_000, self._sources(), devices)
        line = json.dumps(since(self._before, now), separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._before = now

    def _sources(self) -> dict[str, object]:
        """Counters by group: the tally's, and those that parts of the board keep."""
        found: dict[str, dict[str, int]] = {}
        for (group, key), count in self.tally.counts.items():
            found.setdefault(group, {})[key] = count
        found["logger"] = {
            "missed_metrics_count": self._missed,
            "missed_log_count": self._logger.missed,
        }
        if self._metadata is not None:
            found["mmds"] = self._metadata.statistics()
        return {**found, **_of_board(self._board)} if self._board else {**found}


def _fault(reason: str) -> ResourceFault:
    debug = f"InitializationFailure({debug_str(reason)})"
    return ResourceFault("metrics", RustError(_BAD_INPUT + reason, debug))


def _of_board(board: Board) -> dict[str, object]:
    """Counters of chips, vCPUs and interrupts, by group."""
    chips = board.machine.statistics()
    accesses = [c.accesses for c in board.threads.statistics()]
    names = ("exit_io_in", "exit_io_out", "exit_mmio_read", "exit_mmio_write")
    vcpu = dict(zip(names, map(sum, zip(*accesses, strict=True)), strict=True))
    vcpu["kvmclock_ctrl_fails"] = board.without_kvmclock
    raised = (a.transport.statistics().interrupts for a in board.machine.attached)
    return {
        "i8042": chips["i8042"],
        "uart": chips["serial"],
        "vcpu": vcpu,
        "interrupts": {"triggers": sum(raised)},
    }


def _devices(board: Board) -> Iterator[tuple[str, str, object]]:
    """Kind, id and counters of each device."""
    for attached in board.machine.attached:
        kind, _, name = attached.name.partition("/")
        yield kind, name, attached.device.statistics()
