"""Log lines, where they go, and that none of it ever waits."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vmmd.loop.logger import (
    DEBUG,
    ERROR,
    INFO,
    OFF,
    TRACE,
    WARN,
    LevelError,
    Logger,
    LoggerUpdateError,
    parse_level,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}"


@pytest.fixture
def logger() -> Iterator[Logger]:
    each = Logger()
    yield each
    each.close()


def message_of(line: str) -> str:
    return line.split("] ", 1)[1]


def test_the_form_of_a_line(logger: Logger, tmp_path: Path) -> None:
    path = tmp_path / "log"
    channel = logger.channel("fc_api", "firecracker")
    logger.instance_id = "my-vm"
    logger.update(str(path))
    channel.info("Hello é")
    logger.update(show_level=True)
    channel.warn("level")
    logger.update(show_log_origin=True)
    channel.error("both")
    logger.update(show_level=False)
    channel.info("origin")
    logger.update(show_log_origin=False)
    channel.info("none")
    origin = r"\S*test_logger\.py:\d+"
    wanted = (
        r"\[my-vm:fc_api\] Hello é",
        r"\[my-vm:fc_api:WARN\] level",
        rf"\[my-vm:fc_api:ERROR:{origin}\] both",
        rf"\[my-vm:fc_api:{origin}\] origin",
        r"\[my-vm:fc_api\] none",
    )
    for line, pattern in zip(path.read_text().splitlines(), wanted, strict=True):
        assert re.fullmatch(f"{TIME} {pattern}", line)


def test_the_origin_is_the_line_that_logged(logger: Logger, tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger.update(str(path), show_log_origin=True)
    number = sys._getframe().f_lineno + 1  # noqa: SLF001 - the line after this one
    logger.channel("main", "m").info("here")
    assert f"test_logger.py:{number}] here" in path.read_text()


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("Error", ERROR),
        ("WARNING", WARN),
        ("warn", WARN),
        ("info", INFO),
        ("Debug", DEBUG),
        ("tRaCe", TRACE),
        ("OFF", OFF),
    ],
)
def test_levels_by_name(text: str, level: int) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize("text", ["", "loud", "fatal", "info ", "3"])
def test_no_such_level(text: str) -> None:
    with pytest.raises(LevelError) as caught:
        parse_level(text)
    assert str(caught.value) == f"Failed to parse string to level filter: {text}"


def test_a_level_lets_through_itself_and_what_is_worse(
    logger: Logger, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    channel = logger.channel("main", "m")
    for level, expected in (
        (OFF, []),
        (ERROR, ["e"]),
        (WARN, ["e", "w"]),
        (INFO, ["e", "w", "i"]),
        (DEBUG, ["e", "w", "i", "d"]),
        (TRACE, ["e", "w", "i", "d"]),
    ):
        path.unlink(missing_ok=True)
        logger.update(str(path), level)
        channel.error("e")
        channel.warn("w")
        channel.info("i")
        channel.debug("d")
        assert [message_of(line) for line in path.read_text().splitlines()] == expected
        assert channel.debugging == (level >= DEBUG)
        assert channel.informing == (level >= INFO)


def test_a_level_that_is_not_given_goes_back_to_info(logger: Logger) -> None:
    logger.update(level=DEBUG)
    logger.update(show_level=True)
    assert logger.level == INFO


def test_the_module_filter_is_a_prefix(logger: Logger, tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger.update(str(path), module="firecracker::api")
    logger.update()
    logger.channel("fc_api", "firecracker::api_server").info("yes")
    logger.channel("main", "firecracker").info("no")
    logger.channel("main", "vmm").info("no")
    assert [message_of(line) for line in path.read_text().splitlines()] == ["yes"]


def test_an_existing_file_is_overwritten_from_its_start(
    logger: Logger, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_text("x" * 200)
    logger.update(str(path))
    logger.channel("main", "m").info("line")
    text = path.read_text()
    assert text.endswith("x" * 100)
    assert message_of(text.splitlines()[0]) == "line"


@pytest.mark.parametrize(
    ("name", "text", "debug"),
    [
        (
            "no/dir",
            "No such file or directory (os error 2)",
            'Os { code: 2, kind: NotFound, message: "No such file or directory" }',
        ),
        (
            ".",
            "Is a directory (os error 21)",
            'Os { code: 21, kind: IsADirectory, message: "Is a directory" }',
        ),
    ],
)
def test_a_file_that_cannot_be_opened_changes_nothing(
    logger: Logger, tmp_path: Path, name: str, text: str, debug: str
) -> None:
    path = tmp_path / "log"
    logger.update(str(path))
    with pytest.raises(LoggerUpdateError) as caught:
        logger.update(str(tmp_path / name), OFF, module="none")
    assert str(caught.value) == f"Failed to open target file: {text}"
    assert caught.value.debug == f"LoggerUpdateError({debug})"
    logger.channel("main", "m").info("still here")
    assert "still here" in path.read_text()


def test_a_full_fifo_loses_lines_and_counts_them(
    logger: Logger, tmp_path: Path
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    logger.update(str(path))  # nobody reads, and this does not wait
    channel = logger.channel("main", "m")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    capacity = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    os.close(reader)
    long = "y" * 4000
    for _ in range(2 * capacity // len(long)):
        channel.info(long)
    assert 0 < logger.missed < 2 * capacity // len(long)


def test_a_torn_line_does_not_spoil_the_next(logger: Logger, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    logger.update(str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        channel = logger.channel("main", "m")
        channel.info("z" * 200_000)
        assert logger.missed == 1
        while _drain(reader):
            pass
        channel.info("next")
        first, line, _ = os.read(reader, 4096).decode().split("\n")
        assert (first, message_of(line), logger.missed) == ("", "next", 1)
    finally:
        os.close(reader)


def _drain(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


SCRIPT = """
from vmmd.loop.logger import Logger
logger = Logger()
channel = logger.channel("main", "m")
for number in range({count}):
    channel.info("x" * 1000)
raise SystemExit(min(logger.missed, 99))
"""


def test_standard_output_that_nobody_reads_does_not_stop_the_process() -> None:
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(count=1000)],
            stdout=writer,
            timeout=20,
            check=False,
        )
        assert done.returncode == 99
        assert fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_a_socket_as_standard_output_does_not_stop_the_process() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(count=2000)],
            stdout=theirs.fileno(),
            timeout=20,
            check=False,
        )
        assert done.returncode == 99
        assert ours.recv(4096).startswith(b"20")


def test_a_file_as_standard_output_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run(
            [sys.executable, "-c", SCRIPT.format(count=1)],
            stdout=file,
            timeout=20,
            check=True,
        )
        file.write(b"after\n")
    first, line, last = path.read_text().splitlines()
    assert (first, message_of(line), last) == ("before", "x" * 1000, "after")


def test_a_closed_standard_output_is_no_error() -> None:
    command = [sys.executable, "-c", SCRIPT.format(count=1)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], timeout=20, check=False
    )
    assert done.returncode == 0
