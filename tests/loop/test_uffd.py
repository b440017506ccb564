"""Memory from a page server: the handshake, faults, and snapshots of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.memory_files import write_diff, write_full
from vmmd._native import ffi
from vmmd.errors import HostError
from vmmd.loop import uffd
from vmmd.loop.dirty import DirtyUnion
from vmmd.loop.files import unmap_guest_memory
from vmmd.loop.memory_file import Parent
from vmmd.loop.origin import Origin
from vmmd.loop.uffd import map_served_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
REGIONS = ((0, 1 << 20), (1 << 32, 2 << 20))
SIZE = 3 << 20


@contextmanager
def page_server(path: Path, memory: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.helpers.page_server", str(path)]
    process = subprocess.Popen(
        [*command, str(memory)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def test_the_handshake_is_one_message_with_the_descriptor(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "uffd.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        memory, server = await map_served_memory(REGIONS, path)
        connection, _ = listener.accept()
    message, fds, _, _ = socket.recv_fds(connection, 4096, 2)
    hosts = [int(ffi.cast("uintptr_t", memory.native.region[i].host)) for i in (0, 1)]
    expected = [
        {
            "base_host_virt_addr": hosts[i],
            "size": REGIONS[i][1],
            "offset": i << 20,
            "page_size": 4096,
            "page_size_kib": 4096,
        }
        for i in (0, 1)
    ]
    assert json.loads(message) == expected
    assert list(json.loads(message)[0]) == list(expected[0])
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [
        "anon_inode:[userfaultfd]"
    ]
    connection.setblocking(False)
    with pytest.raises(BlockingIOError):  # neither more, nor an end
        connection.recv(1)
    os.close(fds[0])
    connection.close()
    unmap_guest_memory(memory)
    server.close()
    server.close()


async def test_pages_come_from_the_server_and_a_full_has_them_all(
    tmp_path: Path,
) -> None:
    old = os.urandom(1 << 20) + bytes(1 << 20) + os.urandom(1 << 20)
    (tmp_path / "base").write_bytes(old)
    with page_server(tmp_path / "uffd.sock", tmp_path / "base"):
        memory, server = await map_served_memory(REGIONS, f"{tmp_path}/uffd.sock")
        assert memory.read(1 << 32, 8) == bytes(8)
        assert memory.read((1 << 20) - 8, 8) == old[(1 << 20) - 8 : 1 << 20]
        memory.write((1 << 32) + (2 << 20) - 4, b"tail")
        expected = old[:-4] + b"tail"

        fd = os.open(tmp_path / "d", os.O_RDWR | os.O_CREAT)
        origin = Origin(served=True)
        diff = await write_diff(memory, fd, DirtyUnion(memory), Parent("base"), origin)
        assert diff.data_pages == 3  # present ones: nobody was asked for the others
        os.close(fd)
        fd = os.open(tmp_path / "m", os.O_RDWR | os.O_CREAT)
        made = await write_full(memory, fd, origin)
        assert (tmp_path / "m").read_bytes() == expected
        assert made.data_pages == 512
        os.close(fd)
        unmap_guest_memory(memory)
        server.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no.sock", "Failed to connect to UDS Unix stream: No such file or directory"),
        ("file", "Failed to connect to UDS Unix stream: Connection refused"),
        (
            "x" * 200,
            "Failed to connect to UDS Unix stream: path must be shorter than SUN_LEN",
        ),
    ],
)
async def test_without_a_server_nothing_stays_open(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "file").touch()
    await trio.to_thread.run_sync(int)  # the worker's own descriptors
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match=text):
        await map_served_memory(REGIONS, str(tmp_path / name))
    assert len(os.listdir("/proc/self/fd")) == fds


async def test_a_server_that_does_not_accept_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "uffd.sock")
    monkeypatch.setattr(uffd, "CONNECT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            with pytest.raises(HostError, match="Failed to connect to UDS Unix stream"):
                await map_served_memory(REGIONS, path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    code = """
import os, sys, trio
from vmmd.loop.uffd import map_served_memory
if not os.geteuid():
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    trio.run(map_served_memory, [(0, 1 << 20)], sys.argv[1])
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "no.sock")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    allowed = Path("/proc/sys/vm/unprivileged_userfaultfd").read_text() == "1\n"
    first = "Failed to UFFD object: Operation not permitted (os error 1); allow it by "
    last = "sysctl vm.unprivileged_userfaultfd=1\n"
    assert allowed or done.stdout.startswith(first), done.stderr
    assert allowed or done.stdout.endswith(last)
