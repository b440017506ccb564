"""The process as clients see it: answers before a start, signals, config files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.daemon import COMMAND, DEADLINE_S, daemon
from tests.helpers.program import printed_by
from tests.helpers.unix_api import UnixApi

BEFORE = "The requested operation is not supported before starting the microVM."
PREFIX = "RunWithoutApiError error: Failed to build MicroVM from Json: "


def test_a_fresh_process_says_what_it_is(tmp_path: Path) -> None:
    with daemon(tmp_path, "--id", "my-vm") as vmm:
        assert vmm.api.ok("GET", "/") == {
            "id": "my-vm",
            "state": "Not started",
            "vmm_version": "1.16.1",
            "app_name": "Firecracker",
        }
        assert vmm.api.ok("GET", "/version") == {"firecracker_version": "1.16.1"}
        assert vmm.api.ok("GET", "/machine-config") == {
            "vcpu_count": 1,
            "mem_size_mib": 128,
            "smt": False,
            "track_dirty_pages": False,
            "huge_pages": "None",
        }
        lines = [line.split("] ", 1)[-1] for line in vmm.stdout().splitlines()]
    assert lines[:3] == [
        "Running Firecracker v1.16.1",
        f'Listening on API socket ("{vmm.sock}").',
        "API server started.",
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/vm", {"state": "Paused"}),
        ("PATCH", "/vm", {"state": "Resumed"}),
        ("PUT", "/actions", {"action_type": "SendCtrlAltDel"}),
        ("PUT", "/actions", {"action_type": "FlushMetrics"}),
        ("PATCH", "/drives/d", {"drive_id": "d", "path_on_host": "/dev/null"}),
        ("GET", "/vmmd/state", None),
    ],
)
def test_what_needs_a_guest_is_refused(
    tmp_path: Path, method: str, path: str, body: object
) -> None:
    with daemon(tmp_path) as vmm:
        answer = vmm.api.call(method, path, body)
    assert answer == (400, {"fault_message": BEFORE})


def test_no_start_without_a_kernel_and_nothing_is_lost(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        vmm.api.ok("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 64})
        start = {"action_type": "InstanceStart"}
        status, answer = vmm.api.call("PUT", "/actions", start)
        text = "Start microvm error: Cannot start microvm without kernel configuration."
        assert (status, answer) == (400, {"fault_message": text})
        kernel = tmp_path / "kernel"
        kernel.write_bytes(b"no kernel at all" * 10)
        vmm.api.ok("PUT", "/boot-source", {"kernel_image_path": str(kernel)})
        status, answer = vmm.api.call("PUT", "/actions", start)
        assert status == 400
        assert "Invalid Elf magic number" in str(answer)
        shown = vmm.api.ok("GET", "/machine-config")
        assert isinstance(shown, dict)
        assert shown["vcpu_count"] == 2


def test_the_logger_can_be_pointed_elsewhere(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        log = tmp_path / "log"
        body = {"log_path": str(log), "level": "Debug", "show_level": True}
        vmm.api.ok("PUT", "/logger", body)
        vmm.api.ok("GET", "/version")
        assert ':fc_api:INFO] The API server received a Get request on "/version".' in (
            log.read_text()
        )
        status, answer = vmm.api.call("PUT", "/logger", {"log_path": str(tmp_path)})
    text = "Logger error: Failed to open target file: Is a directory (os error 21)"
    assert (status, answer) == (400, {"fault_message": text})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_deadly_signal_is_what_it_dies_of(tmp_path: Path, number: int) -> None:
    with daemon(tmp_path) as vmm:
        vmm.api.ok("GET", "/")
        vmm.process.send_signal(number)
        assert vmm.wait() == -number
        assert vmm.sock.is_socket()
        assert not vmm.stderr()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 156), (signal.SIGXFSZ, 151), (signal.SIGXCPU, 154)],
)
def test_other_signals_have_exit_codes(tmp_path: Path, number: int, code: int) -> None:
    with daemon(tmp_path) as vmm:
        vmm.api.ok("GET", "/")
        vmm.process.send_signal(number)
        assert vmm.wait() == code
        text = f"Shutting down VM after intercepting signal {int(number)}, code 0."
        assert text in vmm.stdout()


def test_a_broken_pipe_is_survived(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        vmm.api.ok("GET", "/")
        vmm.process.send_signal(signal.SIGPIPE)
        end = time.monotonic() + DEADLINE_S
        while "Received signal 13, code 0." not in vmm.stdout():
            vmm.api.ok("GET", "/")
            assert time.monotonic() < end


CONFIGS = [
    ("{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
    ("{}", "Invalid JSON: missing field `drives` at line 1 column 2"),
    (
        {"boot-source": {"kernel_image_path": "missing"}, "drives": []},
        "Boot source error: The kernel file cannot be opened: "
        "No such file or directory (os error 2)",
    ),
    (
        {
            "boot-source": {"kernel_image_path": "config"},
            "drives": [],
            "machine-config": {"vcpu_count": 0, "mem_size_mib": 128},
        },
        "VM config error: The number of vCPUs must be greater than 0, less than 32 "
        "and must be 1 or an even number if SMT is enabled.",
    ),
    (
        {
            "boot-source": {"kernel_image_path": "config"},
            "drives": [],
            "logger": {"log_path": "/nowhere/log"},
        },
        "Logger error: Failed to open target file: "
        "No such file or directory (os error 2)",
    ),
]


@pytest.mark.parametrize(("config", "text"), CONFIGS)
def test_a_wrong_config_file_is_one_clear_line(
    tmp_path: Path, config: object, text: str
) -> None:
    content = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config").write_text(content)
    with daemon(tmp_path, "--no-api", "--config-file", "config") as vmm:
        assert vmm.wait() == 1
        assert (
            f"{PREFIX}Configuration for VMM from one single json failed: {text}\n"
            in (vmm.stdout())
        )
        assert vmm.stderr().startswith("Error: RunWithoutApiError(")
        assert "Traceback" not in vmm.stderr()


def test_a_config_file_whose_kernel_is_none(tmp_path: Path) -> None:
    config = {"boot-source": {"kernel_image_path": "config"}, "drives": []}
    (tmp_path / "config").write_text(json.dumps(config).ljust(200))
    with daemon(tmp_path, "--no-api", "--config-file", "config") as vmm:
        assert vmm.wait() == 1
        assert f"{PREFIX}Could not Start MicroVM from one single json: System " in (
            vmm.stdout()
        )
        inner = "ConfigureSystem(KernelLoader(Elf(InvalidElfMagicNumber)))"
        assert vmm.stderr() == (
            f"Error: RunWithoutApiError(BuildMicroVMFromJson(StartMicroVM({inner})))\n"
        )


def test_closed_standard_files_are_nobodys_console(tmp_path: Path) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    sock = tmp_path / "api.sock"
    command = ["sh", "-c", script, "sh", *COMMAND, "--api-sock", str(sock)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()})
    try:
        with closing(UnixApi(sock)) as api:
            api.ok("GET", "/")
        for fd in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
    finally:
        process.kill()
        process.wait()


# Prints how many descriptors it may have, once the table was to have grown.
FEW = """
import resource
from vmmd.loop.daemon import _grow_fd_table
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
_grow_fd_table()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_process_may_be_allowed_few_descriptors() -> None:
    assert printed_by(FEW) == "512\n"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_log_that_nobody_reads_any_more_holds_up_nothing(
    tmp_path: Path, kind: str
) -> None:
    ends = socket.socketpair() if kind == "socket" else None
    reader, writer = os.pipe() if ends is None else (end.detach() for end in ends)
    os.close(reader)
    with daemon(tmp_path, stdout=writer) as vmm:
        os.close(writer)
        vmm.api.ok("PUT", "/metrics", {"metrics_path": str(tmp_path / "metrics")})
        for _ in range(30):
            vmm.api.ok("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64})
        vmm.process.send_signal(signal.SIGHUP)  # before a start it is told, with all
        vmm.wait()
    told = json.loads((tmp_path / "metrics").read_text())
    assert told["signals"]["sigpipe"] <= 1  # each was logged, which gave another
    assert told["put_api_requests"]["machine_cfg_count"] == 30
    assert told["logger"]["missed_log_count"] >= 30


@pytest.mark.parametrize(
    ("argv", "full", "code"), [("--help", "stdout", 1), ("--bogus", "stderr", 153)]
)
def test_what_cannot_be_printed_leaves_the_exit_code(
    tmp_path: Path, argv: str, full: str, code: int
) -> None:
    paths = {
        "stdout": tmp_path / "1",
        "stderr": tmp_path / "2",
        full: Path("/dev/full"),
    }
    with open(paths["stdout"], "w") as out, open(paths["stderr"], "w") as err:
        done = subprocess.run(
            [*COMMAND, argv], timeout=DEADLINE_S, stdout=out, stderr=err
        )
    assert done.returncode == code
    for name in ("1", "2"):
        if (tmp_path / name).exists():
            assert "Traceback" not in (tmp_path / name).read_text()


@pytest.mark.parametrize(("digits", "code"), [("x", 1), ("1", 0)])
def test_a_number_of_many_digits(digits: str, code: int) -> None:
    argv = ("--http-api-max-payload-size", "0" * 5000 + digits, "--no-api")
    done = subprocess.run(
        [*COMMAND, *argv, "--version"],
        timeout=DEADLINE_S,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, code)
