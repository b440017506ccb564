"""`vmmd run --net`, saved, killed, and gone on from with the same network."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.helpers.network import own_network
from tests.helpers.nic import needs_root
from tests.helpers.poll import until
from tests.helpers.program import ROOT
from tests.helpers.unix_api import UnixApi
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_root

LOOP = bytes.fromhex("66baf803 b056 ee ebfe")  # prints V and loops
VMMD = (sys.executable, "-m", "vmmd")
_DEADLINE_S = 30


class Run:
    """A `vmmd run` that serves its API."""

    def __init__(self, sock: Path, *arguments: str) -> None:
        self.sock = sock
        self.process = subprocess.Popen(
            [*VMMD, "run", *arguments, "--api-sock", str(sock)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.api = UnixApi(sock)

    @property
    def tap(self) -> str:
        return f"vmmd{self.process.pid}"

    def interface(self) -> tuple[str, str | None]:
        """Its tap and the guest's MAC."""
        config = self.api.ok("GET", "/vm/config")
        assert isinstance(config, dict)
        (found,) = config["network-interfaces"]
        return found["host_dev_name"], found.get("guest_mac")

    def is_running(self) -> bool:
        info = self.api.ok("GET", "/")
        assert isinstance(info, dict)
        return bool(info["state"] == "Running")


@contextmanager
def run(sock: Path, *arguments: str, net: str = "") -> Iterator[Run]:
    """With a guest that runs; killed at the end, when its network goes too."""
    made = Run(sock, *arguments, "--net", *([net] if net else []))
    try:
        until(made.is_running)
        yield made
    finally:
        made.api.close()
        made.process.kill()
        made.process.communicate(timeout=_DEADLINE_S)
        until(lambda: made.tap not in shell("ip -br link"))
        sock.unlink(missing_ok=True)


def shell(command: str) -> str:
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True
    ).stdout


def addresses_of(tap: str) -> tuple[str, str]:
    """Its MAC and its IPv4 address."""
    return (
        shell(f"ip -br link show {tap}").split()[2],
        shell(f"ip -4 -br addr show {tap}").split()[2],
    )


@pytest.fixture
def sock(tmp_path: Path) -> Iterator[Path]:
    with own_network():
        yield tmp_path / "api.sock"


def saved(vm: Run, folder: Path) -> str:
    """A snapshot of it in ``folder``; the folder's name."""
    vm.api.ok("PATCH", "/vm", {"state": "Paused"})
    command = [*VMMD, "snapshot", "create", str(vm.sock), str(folder)]
    subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, timeout=_DEADLINE_S
    )
    return str(folder)


def refused(folder: str) -> str:
    """Why `vmmd run --restore --net` does not go on from there."""
    done = subprocess.run(
        [*VMMD, "run", "--restore", folder, "--net"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_it_comes_back_with_the_network_that_the_guest_knows(
    sock: Path, tmp_path: Path
) -> None:
    (tmp_path / "kernel").write_bytes(kernel_image(LOOP))
    with run(sock, "--kernel", str(tmp_path / "kernel"), "--mem", "64M") as first:
        before, (tap, mac) = addresses_of(first.tap), first.interface()
        assert tap == first.tap
        folder = saved(first, tmp_path / "snapshot")
        said = refused(folder)
        assert "is in use on this host" in said
        assert "--tap IFACE=DEV" in said
    with run(sock, "--restore", folder) as second:
        assert addresses_of(second.tap) == before
        assert second.interface() == (second.tap, mac)


def test_a_guest_that_had_no_network_of_ours(sock: Path, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel_image(LOOP))
    shell("ip tuntap add dev mine mode tap")
    kernel = ("--kernel", str(tmp_path / "kernel"), "--mem", "64M")
    with run(sock, *kernel, net="mine") as first:
        folder = saved(first, tmp_path / "snapshot")
    assert "was not started with --net" in refused(folder)
    shell("ip tuntap add dev other mode tap")
    with run(sock, "--restore", folder, net="other") as second:
        tap, _ = second.interface()
        assert tap == "other"
