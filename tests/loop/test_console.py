"""The console over real pipes and a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from vmmd.chips.serial import FIFO_CAPACITY, RBR, THR, Serial
from vmmd.loop.console import BACKLOG_CAPACITY, Console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

F_SETPIPE_SZ = 1031


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(10):
        yield


@pytest.fixture
def serial() -> Serial:
    return Serial()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            close_quietly(fd)


def close_quietly(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return


@contextmanager
def console(serial: Serial, stdin_fd: int, stdout_fd: int) -> Iterator[Console]:
    made = Console(serial, stdin_fd, stdout_fd)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def say(serial: Serial, text: bytes) -> None:
    for value in text:
        serial.write(THR, 1, value)


def hear(serial: Serial) -> bytes:
    got = bytearray()
    while serial.page.load(5, 1) & 1:
        got.append(serial.read(RBR, 1))
    return bytes(got)


def nothing() -> None:
    pass


# -- Output ------------------------------------------------------------------------


async def test_a_burst_is_one_write(serial: Serial, null: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, console(serial, null, ours.fileno()) as made:
        made.flush()
        say(serial, b"Linux version 6.1\r\n")
        made.flush()
        say(serial, b"Command line\r\n")
        made.flush()
        assert theirs.recv(4096) == b"Linux version 6.1\r\n"
        assert theirs.recv(4096) == b"Command line\r\n"


async def test_a_slow_reader_gets_all_that_the_backlog_holds(
    serial: Serial, null: int
) -> None:
    with pipe() as (reader, writer), console(serial, null, writer) as made:
        fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
        text = bytes(range(256)) * 64
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run_output)
            for start in range(0, len(text), 1000):
                say(serial, text[start : start + 1000])
                made.flush()
            assert made.statistics().backlog == len(text) - 4096
            got = bytearray()
            while len(got) < len(text):
                await trio.lowlevel.wait_readable(reader)
                got += os.read(reader, 4096)
            nursery.cancel_scope.cancel()
        assert got == text
        assert made.statistics().dropped_count == 0


async def test_what_the_backlog_does_not_hold_is_dropped_and_counted(
    serial: Serial, null: int
) -> None:
    with pipe() as (reader, writer), console(serial, null, writer) as made:
        fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
        for _ in range(3):
            say(serial, b"x" * 40_000)
            made.flush()
        lost = 120_000 - 4096 - BACKLOG_CAPACITY
        assert made.statistics().dropped_count == lost
        assert made.statistics().backlog == BACKLOG_CAPACITY
        assert os.read(reader, 8192) == b"x" * 4096


async def test_a_reader_that_is_gone_is_an_error_and_no_more(
    serial: Serial, null: int
) -> None:
    with pipe() as (reader, writer), console(serial, null, writer) as made:
        os.close(reader)
        say(serial, b"hello")
        made.flush()
        seen = made.statistics()
        assert (seen.error_count, seen.dropped_count, seen.backlog) == (1, 5, 0)


async def test_output_to_a_file_is_whole(
    serial: Serial, null: int, tmp_path: Path
) -> None:
    file = (tmp_path / "out").open("wb")
    with file, console(serial, null, file.fileno()) as made:
        say(serial, b"y" * 60_000)
        made.flush()
    assert (tmp_path / "out").read_bytes() == b"y" * 60_000


async def test_last_words_wait_a_moment_for_a_reader(serial: Serial, null: int) -> None:
    with pipe() as (reader, writer), console(serial, null, writer) as made:
        fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
        say(serial, b"z" * 5000)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.finish, 5)
            while len(got) < 5000:
                await trio.lowlevel.wait_readable(reader)
                got += os.read(reader, 4096)
        assert got == b"z" * 5000
        say(serial, b"z" * 5000)
        await made.finish(0.05)
        assert made.statistics().backlog == 904


# -- Input -------------------------------------------------------------------------


async def test_input_reaches_the_guest_as_fast_as_it_reads(
    serial: Serial, null: int
) -> None:
    text = bytes(range(256)) * 2
    bursts = 0

    def received() -> None:
        nonlocal bursts
        bursts += 1

    with pipe() as (reader, writer), console(serial, reader, null) as made:
        os.write(writer, text)
        os.close(writer)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run_input, received)
            while len(got) < len(text):
                await wait_all_tasks_blocked()
                assert serial.room() == 0
                got += hear(serial)
                made.flush()
        assert got == text
        assert bursts == len(text) // FIFO_CAPACITY
        assert not made.statistics().input_open


async def test_a_full_uart_costs_nothing(serial: Serial, null: int) -> None:
    with pipe() as (reader, writer), console(serial, reader, null) as made:
        os.write(writer, bytes(1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run, nothing)
            await wait_all_tasks_blocked()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
            await trio.sleep(0.2)
            waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
            assert waits <= 3  # the sleep itself
            nursery.cancel_scope.cancel()


async def test_input_that_is_closed_ends_the_pump(serial: Serial, null: int) -> None:
    with pipe() as (reader, writer), console(serial, reader, null) as made:
        os.close(writer)
        await made.run_input(nothing)
        assert not made.statistics().input_open


async def test_a_closed_console_ends_its_pumps(serial: Serial) -> None:
    with pipe() as (reader, writer), pipe() as (out_reader, out_writer):
        made = Console(serial, reader, out_writer)
        fcntl.fcntl(out_writer, F_SETPIPE_SZ, 4096)
        say(serial, bytes(5000))
        made.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run, nothing)
            await wait_all_tasks_blocked()
            made.close()
        assert os.read(out_reader, 1) == b"\0"
        assert os.write(writer, b"x") == 1


@pytest.mark.parametrize("kind", ["null", "file", "closed"])
async def test_input_of_other_kinds_is_not_read(
    serial: Serial, null: int, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"typed")
    fd = os.open("/dev/null" if kind == "null" else path, os.O_RDONLY)
    if kind == "closed":
        os.close(fd)
    with console(serial, fd, null) as made:
        await made.run_input(nothing)
        assert hear(serial) == b""
        assert not made.statistics().input_open
    if kind != "closed":
        os.close(fd)


async def test_nobody_elses_descriptor_becomes_nonblocking(serial: Serial) -> None:
    with pipe() as (reader, _), pipe() as (_, writer), console(serial, reader, writer):
        assert os.get_blocking(reader)
        assert os.get_blocking(writer)


async def test_a_sockets_flags_are_put_back(serial: Serial) -> None:
    one, other = socket.socketpair()
    with one, other:
        with console(serial, one.fileno(), one.fileno()) as made:
            assert not os.get_blocking(one.fileno())
            other.send(b"hi")
            other.shutdown(socket.SHUT_WR)
            await made.run_input(nothing)
            assert hear(serial) == b"hi"
            say(serial, b"lo")
            made.flush()
            assert other.recv(10) == b"lo"
        assert os.get_blocking(one.fileno())


# -- A terminal --------------------------------------------------------------------


async def test_a_terminal_is_raw_while_it_is_read_and_restored(serial: Serial) -> None:
    host, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    typed = trio.Event()

    def received() -> None:
        if serial.room() == FIFO_CAPACITY - 3:
            typed.set()

    with console(serial, terminal, terminal) as made:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run, received)
            await wait_all_tasks_blocked()
            local = termios.tcgetattr(terminal)[3]
            assert not local & (termios.ICANON | termios.ECHO | termios.ISIG)
            os.write(host, b"\x03\rq")
            await typed.wait()
            assert hear(serial) == b"\x03\rq"
            say(serial, b"\n")
            made.flush()
            await trio.lowlevel.wait_readable(host)
            assert os.read(host, 10) == b"\n"
            nursery.cancel_scope.cancel()
        assert termios.tcgetattr(terminal) == before
    os.close(terminal)
    os.close(host)


async def test_a_terminal_that_hangs_up_ends_the_pump(serial: Serial) -> None:
    host, terminal = pty.openpty()
    with console(serial, terminal, terminal) as made:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run_input, nothing)
            await wait_all_tasks_blocked()
            os.close(host)
        say(serial, b"anybody?")
        made.flush()
        assert made.statistics().error_count == 1
    os.close(terminal)


SCRIPT = """
import fcntl, os, sys, termios, trio, trio.testing
from vmmd.chips.serial import Serial
from vmmd.loop.console import Console
go, background = int(sys.argv[1]), sys.argv[2] == "True"
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if background:
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
    os.setpgid(0, 0)
made = Console(Serial())
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        os.write(2, str(made.statistics().input_open).encode() + b"\\n")
        await trio.lowlevel.wait_readable(go)
        raise RuntimeError("a bug in some pump")
trio.run(main)
"""


def run_on_terminal(terminal: int, background: bool) -> tuple[str, list[object]]:
    """SCRIPT with ``terminal`` as its controlling terminal; what it says, and the
    terminal's mode meanwhile."""

    go, gone = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(go), str(background)],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        pass_fds=(go,),
        start_new_session=True,
        text=True,
    )
    os.close(go)
    try:
        assert child.stderr is not None
        said = child.stderr.readline().strip()
        mode = termios.tcgetattr(terminal)
        os.write(gone, b"x")
        child.communicate(timeout=10)
    finally:
        os.close(gone)
        child.kill()
        child.communicate()
    return said, mode


@pytest.mark.parametrize("background", [False, True])
async def test_a_crash_restores_the_terminal_and_the_background_leaves_it_alone(
    background: bool,
) -> None:
    host, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    said, meanwhile = run_on_terminal(terminal, background)
    assert said == str(not background)
    assert (meanwhile == before) is background
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)
    os.close(host)


async def test_signals_are_as_they_were(serial: Serial) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    host, terminal = pty.openpty()
    with console(serial, terminal, terminal):
        pass
    os.close(terminal)
    os.close(host)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
