"""``vmmd snapshot create`` against a VM that takes as long as a test wants."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from typing import TYPE_CHECKING

import pytest

from tests.helpers.commands import VMMD, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 30.0


class SlowVm(ThreadingUnixStreamServer):
    """A running VM; its create is not answered before ``written`` is set."""

    daemon_threads = True

    def __init__(self, path: Path, status: int) -> None:
        self.status = status
        self.asked: list[str] = []
        self.creating, self.written, self.resumed = (
            threading.Event() for _ in range(3)
        )
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Say nothing."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        vm = self.server
        assert isinstance(vm, SlowVm)
        vm.asked.append(f"{self.command} {self.path} {body}".strip())
        status, text = 204, b""
        if self.path == "/":
            status, text = 200, b'{"state": "Running"}'
        elif self.path == "/vmmd/snapshot/progress":
            status, text = 200, b'{"done_bytes": 1048576, "size_bytes": 4194304}'
        elif self.path == "/snapshot/create":
            vm.creating.set()
            vm.written.wait(DEADLINE_S)
            status = vm.status
        elif "Resumed" in body:
            vm.resumed.set()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_PATCH = _answer


@contextmanager
def creating(
    folder: Path, status: int = 204
) -> Iterator[tuple[SlowVm, subprocess.Popen[str]]]:
    """A create that is under way, and who waits for it."""
    with SlowVm(folder / "api", status) as vm:
        threading.Thread(target=vm.serve_forever, daemon=True).start()
        command = [*VMMD, "snapshot", "create", "api", "snap", "--diff"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), text=True, stdout=pipe, stderr=pipe
        )
        try:
            assert vm.creating.wait(DEADLINE_S)
            yield vm, process
        finally:
            vm.written.set()
            process.kill()
            process.communicate()
            vm.shutdown()


def changes(vm: SlowVm) -> list[str]:
    return [line for line in vm.asked if not line.startswith("GET")]


def test_paused_created_resumed_with_whole_paths(tmp_path: Path) -> None:
    with creating(tmp_path) as (vm, process):
        vm.written.set()
        out, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("diff snapshot in snap, guest paused for ")
    where = os.path.realpath(tmp_path / "snap")
    assert changes(vm) == [
        'PATCH /vm {"state": "Paused"}',
        'PUT /snapshot/create {"snapshot_type": "Diff", '
        f'"snapshot_path": "{where}/vm.state", "mem_file_path": "{where}/vm.mem"}}',
        'PATCH /vm {"state": "Resumed"}',
    ]


def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    with creating(tmp_path) as (vm, process):
        assert process.stderr is not None
        assert process.stderr.readline() == "writing memory: 25 % of 4 MiB\n"
        vm.written.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_midst_the_guest_goes_on(tmp_path: Path, number: int) -> None:
    with creating(tmp_path) as (vm, process):
        process.send_signal(number)
        assert vm.resumed.wait(DEADLINE_S)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "then the guest goes on" in errors.splitlines()[-1]


def test_refused_the_guest_goes_on(tmp_path: Path) -> None:
    with creating(tmp_path, 400) as (vm, process):
        vm.written.set()
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "refused without a reason" in errors
    assert vm.resumed.is_set()
