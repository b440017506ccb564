"""lab/run from outside: status, streams, bounds. `make test-lab` runs this too.

It starts the emulated host and so cannot run within it; hence not in tests/lab.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUN = str(ROOT / "lab/run")
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif("VMMD_LAB" in os.environ, reason="these start the lab"),
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """lab/run with these arguments, to its end."""
    return subprocess.run(
        [RUN, "--timeout", "120", *arguments], capture_output=True, text=True
    )


def test_a_failing_command_s_status_and_streams_come_out() -> None:
    done = run("--", "sh", "-c", "echo out; echo err >&2; test -c /dev/kvm && exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.splitlines()[-1] == "err"


def test_files_come_out_of_the_shared_folder_alone(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    script = f"cd {tmp_path} && echo kept | tee shared/file >other/file && cat */file"
    done = run("--share", str(shared), "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "kept\nkept\n")
    assert (shared / "file").read_text() == "kept\n"
    assert not (other / "file").exists()


def test_the_command_sees_this_folder_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMMD_SHOWN", "a 'quoted' $word")
    monkeypatch.setenv("SECRET", "kept here")
    done = run("--", "sh", "-c", 'pwd; echo "$VMMD_SHOWN|$SECRET|$VMMD_LAB"')
    assert done.stdout == f"{tmp_path}\na 'quoted' $word||1\n"


def test_a_run_that_takes_too_long_is_ended() -> None:
    done = run("--timeout", "8", "--", "sleep", "1000")
    assert done.returncode == 124
    assert "no end within 8 s: sleep 1000" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_qemu(number: signal.Signals) -> None:
    child = subprocess.Popen(
        [RUN, "--timeout", "120", "--", "sh", "-c", "echo up; sleep 1000"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        [qemu] = children(child.pid)
        child.send_signal(number)
        wanted = -number if number == signal.SIGKILL else 128 + number
        assert child.wait(timeout=10) == wanted
    until = time.monotonic() + 5
    while alive(qemu) and time.monotonic() < until:
        time.sleep(0.01)  # nothing tells of a process that is not a child
    assert not alive(qemu)


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    assert run().returncode == 2
    assert run("--share", str(tmp_path / "none"), "--", "true").returncode == 2


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    return [
        int(word)
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def alive(pid: int) -> bool:
    """Whether it runs still (a zombie does not)."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
