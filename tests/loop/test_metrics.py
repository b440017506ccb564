"""Where metrics are written: files and FIFOs, and that nothing waits for a reader."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.helpers.options import options
from vmmd.loop.metrics import Metrics, MetricsFile
from vmmd.resources.fault import ResourceFault

if TYPE_CHECKING:
    from pathlib import Path

PIPE_SIZE = 65536
LINE = b"x" * 4999 + b"\n"


def test_a_file_is_made_and_written_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with closing(MetricsFile(str(path))) as file:
        file.write(b"one\n")
        file.write(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_fifo_without_a_reader_never_blocks_and_tears_no_line(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with closing(MetricsFile(str(path))) as file:
        taken = 0
        with suppress(BlockingIOError):
            while True:
                file.write(LINE)
                taken += 1
        assert taken > PIPE_SIZE // 2 // len(LINE)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        data = os.read(reader, PIPE_SIZE)
        file.write(b"last\n")
        data += os.read(reader, PIPE_SIZE)
        os.close(reader)
    assert data == LINE * taken + b"last\n"


def test_only_one_file_and_it_must_be_there(tmp_path: Path) -> None:
    metrics = Metrics(options(str(tmp_path / "log")))
    with closing(metrics):
        with pytest.raises(
            ResourceFault, match="user input: No such file or directory"
        ):
            metrics.open(str(tmp_path / "no" / "m"))
        metrics.open(str(tmp_path / "m"))
        with pytest.raises(ResourceFault) as caught:
            metrics.open(str(tmp_path / "m"))
    assert str(caught.value) == (
        "Metrics error: Cannot initialize the metrics system due to bad user input: "
        "Reinitialization of metrics not allowed."
    )
    assert caught.value.debug == (
        'Metrics(InitializationFailure("Reinitialization of metrics not allowed."))'
    )


def test_nobody_asked_and_nothing_runs(tmp_path: Path) -> None:
    asked = replace(options(str(tmp_path / "log")), metrics_path=str(tmp_path / "m"))
    for metrics in (Metrics(options(str(tmp_path / "log"))), Metrics(asked)):
        with closing(metrics):
            metrics.flush()
    assert (tmp_path / "m").read_bytes() == b""
