"""``vmmd run --net``: the tap and the NAT come, and go however the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.helpers.network import own_network
from tests.helpers.poll import until
from vmmd.cli.nat import FORWARDING, sweep
from vmmd.loop.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")
OWNER = """
import sys
from vmmd.cli.nat import open_nat
made = open_nat()
print(made.nat.tap, made.nat.table, made.nat.gateway, made._guard.pid, flush=True)
sys.stdin.read()
made.close()
"""
DEADLINE_S = 30
RUN = (sys.executable, "-m", "vmmd", "run", "--kernel", "/nowhere/vmlinux")


class Owner:
    """A process with a network; its standard input's end ends it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
        assert self.process.stdout
        words = self.process.stdout.readline().split()
        self.tap, self.table, self.gateway, guard = words
        self.guard = int(guard)

    def end(self) -> None:
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        FORWARDING.write_text("0")
        yield


@contextmanager
def owner() -> Iterator[Owner]:
    made = Owner()
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def shell(command: str) -> str:
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True
    ).stdout


def left() -> list[str]:
    """What stands in this namespace: interfaces, tables, whether it forwards."""
    links = shell("ip -br link | cut -d' ' -f1").split()
    tables = shell("nft list tables").splitlines()
    return [*sorted({*links} - {"lo"}), *tables, FORWARDING.read_text().strip()]


def wait_until_left(*what: str) -> None:
    until(lambda: left() == [*what], DEADLINE_S)


def test_it_comes_and_goes() -> None:
    with owner() as one:
        assert left() == [one.tap, f"table ip {one.table}", "1"]
        assert f"{one.gateway}/30" in shell(f"ip -4 addr show {one.tap}")
        assert "masquerade" in shell(f"nft list table ip {one.table}")
        one.end()
        assert left() == ["0"]


def test_it_goes_when_its_owner_is_killed() -> None:
    with owner() as one:
        one.process.kill()
        wait_until_left("0")


def test_it_stays_through_signals_to_the_group() -> None:
    with owner() as one:
        for name in ("INT", "TERM", "HUP"):
            shell(f"kill -{name} {one.guard}")
        assert one.tap in left()
        one.process.kill()
        wait_until_left("0")


def test_what_was_left_behind_goes_with_the_next_one() -> None:
    with owner() as one:
        shell(f"kill -9 {one.guard}")
        one.process.kill()
        one.process.wait()
        assert left() == [one.tap, f"table ip {one.table}", "1"]
    with owner() as two:
        assert left() == [two.tap, f"table ip {two.table}", "1"]
        two.end()
        assert left() == ["0"]


def test_the_last_to_go_turns_forwarding_off() -> None:
    with owner() as one, owner() as two:
        assert one.gateway != two.gateway
        one.end()
        assert left() == [two.tap, f"table ip {two.table}", "1"]
        two.end()
        assert left() == ["0"]


def test_forwarding_that_was_on_stays_on() -> None:
    FORWARDING.write_text("1")
    with owner() as one:
        assert "drop" in shell(f"nft list table ip {one.table}")
        assert 'iifname != "vmmd*"' not in shell(f"nft list table ip {one.table}")
        one.end()
    assert left() == ["1"]


def test_a_tap_that_somebody_holds_is_not_swept_away() -> None:
    """Its process may live where it cannot be seen from here."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    tap = Tap.open(f"vmmd{gone.pid}")
    shell(f"ip link set {tap.name} up")
    sweep()
    assert tap.name in left()
    tap.close()
    shell(f"ip tuntap add dev {tap.name} mode tap")
    sweep()
    assert left() == ["0"]


def test_a_run_that_cannot_start_leaves_nothing() -> None:
    done = subprocess.run([*RUN, "--net"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "vmmd run: the guest is 10.213." in done.stderr
    assert "/nowhere/vmlinux" in done.stderr or "No such file" in done.stderr
    assert left() == ["0"]


def test_a_tap_by_name_is_used_as_it_is() -> None:
    shell("ip tuntap add dev mine mode tap")
    busy = Tap.open("mine")
    # Without a word of ours on the screen; the kernel is looked at before.
    command = [*RUN[:-1], "/proc/self/exe", "--net", "mine"]
    done = subprocess.run(command, capture_output=True, text=True)
    busy.close()
    assert done.returncode == 1
    assert "'mine': TUNSETIFF: Device or resource busy (EBUSY)" in done.stderr
    assert left() == ["mine", "0"]


def test_a_snapshot_that_is_not_there_leaves_nothing() -> None:
    command = [*RUN[:-2], "--restore", "/nowhere", "--net"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "vmmd run: /nowhere/vm.state: there is no such file\n"
    assert left() == ["0"]


def test_a_snapshots_interface_has_one_tap() -> None:
    command = [*RUN[:-2], "--restore", "/nowhere", "--net", "mine", "--tap", "eth0=t"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--net and --tap eth0=t are for one interface" in done.stderr


def test_without_the_capability_it_says_what_would_help() -> None:
    drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    done = subprocess.run([*drop, *RUN, "--net"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "vmmd run: --net makes a tap and NAT, which needs CAP_NET_ADMIN: run it as root,"
        " or have root make a tap (`ip tuntap add dev tap0 mode tap user 0`), and give"
        " `--net tap0`\n"
    )
    assert left() == ["0"]


@pytest.mark.parametrize(
    ("program", "package"), [("ip", "iproute2"), ("nft", "nftables")]
)
def test_without_a_program_it_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    for name in {"ip", "nft"} - {program}:
        (tmp_path / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    script = (
        "import vmmd.cli.nat as nat, vmmd.cli.run as run\n"
        "nat._ADMIN_PATH = ''\n"
        "raise SystemExit(run.main(['--kernel', '/x', '--net']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"--net needs {program}, which is missing" in done.stderr
    assert f"apt-get install {package}" in done.stderr
