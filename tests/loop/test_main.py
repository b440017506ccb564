"""The entry points as processes: name, signals, what is imported when."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vmmd import FIRECRACKER_VERSION, __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

# A machine that answers nothing: it waits for the signal that ends it.
WAITING = """
import sys, types, signal
lean = types.ModuleType("vmmd.loop.lean")
def import_lean(name):
    print("trio" in sys.modules, flush=True)
    signal.pause()
lean.stand_in = lambda: None
lean.import_lean = import_lean
sys.modules["vmmd.loop.lean"] = lean
from vmmd.__main__ import firecracker
sys.exit(firecracker())
"""


def python(code: str, *argv: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A ``firecracker`` whose machine runs."""
    process = python(WAITING, "--api-sock", "api", cwd=tmp_path)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[-1] == "False\n", lines
    yield process
    process.kill()
    process.communicate(timeout=10)


def test_the_process_has_firecrackers_name(waiting: subprocess.Popen[str]) -> None:
    assert Path(f"/proc/{waiting.pid}/comm").read_text() == "firecracker\n"


def test_the_socket_listens_before_trio_is_imported(
    waiting: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert waiting.poll() is None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "api"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 156), (signal.SIGXCPU, 154)]
)
def test_a_signal_with_a_code_of_its_own_has_it_before_the_loop(
    waiting: subprocess.Popen[str], number: signal.Signals, code: int
) -> None:
    waiting.send_signal(number)
    output, _ = waiting.communicate(timeout=10)
    assert waiting.returncode == code
    line = f"Shutting down VM after intercepting signal {int(number)}, code 0."
    assert output.splitlines()[-1].endswith(line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_loop_ends_the_process_by_that_signal(
    waiting: subprocess.Popen[str], number: signal.Signals
) -> None:
    waiting.send_signal(number)
    assert waiting.wait(timeout=10) == -number


def test_version_imports_nothing_slow(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from vmmd.__main__ import firecracker\n"
        "code = firecracker()\n"
        "slow = {'trio', 'dataclasses', 'typing', 'json', 'h11', 'socket'}\n"
        "print(slow & set(sys.modules))\n"
        "sys.exit(code)"
    )
    process = python(code, "--version", cwd=tmp_path)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [f"Firecracker v{FIRECRACKER_VERSION}", ""]
    assert lines[3] == "set()"


VMMD = "import sys\nfrom vmmd.__main__ import vmmd\nsys.exit(vmmd())"


@pytest.mark.parametrize(
    ("argv", "code", "start"),
    [
        (["--version"], 0, f"vmmd {__version__} (Firecracker API v"),
        ([], 0, "usage: vmmd COMMAND"),
        (["--help"], 0, "usage: vmmd COMMAND"),
        (["bogus"], 2, ""),
    ],
)
def test_the_vmmd_command(
    tmp_path: Path, argv: list[str], code: int, start: str
) -> None:
    process = python(VMMD, *argv, cwd=tmp_path)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out.startswith(start)
    assert err.startswith("vmmd: no command 'bogus'\n") == (code == 2)
