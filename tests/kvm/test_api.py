"""A small guest over the API: start, pause, resume, drives, the end."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import DEADLINE_S, Daemon, daemon
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from pathlib import Path

AFTER = "The requested operation is not supported after starting the microVM."
LOOP = bytes.fromhex("66baf803 b056 ee ebfe")  # prints V and loops
RESET = bytes.fromhex("66baf803 b056 ee b0fe e664 ebfe")  # prints V and resets
TRIPLE = bytes.fromhex("66baf803 b056 ee 0f0b")  # prints V and faults without an IDT
# Maps the timer's page (PDPTE 3 to a table at 0xC000), writes 123 there, resets.
TIMER = bytes.fromhex(
    "c7042518a0000003c00000 c7042500c00000830000c0 bb000000c0 c6037b b0fe e664 ebfe"
)


def configured(vmm: Daemon, code: bytes, *drives: Path) -> Daemon:
    kernel = vmm.folder / "kernel"
    kernel.write_bytes(kernel_image(code))
    vmm.api.ok("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64})
    source = {"kernel_image_path": str(kernel), "boot_args": "quiet"}
    vmm.api.ok("PUT", "/boot-source", source)
    for path in drives:
        drive = {
            "drive_id": path.name,
            "path_on_host": str(path),
            "is_root_device": False,
            "is_read_only": False,
        }
        vmm.api.ok("PUT", f"/drives/{path.name}", drive)
    return vmm


def started(vmm: Daemon, code: bytes, *drives: Path) -> Daemon:
    configured(vmm, code, *drives)
    vmm.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})
    return vmm


def state(vmm: Daemon) -> object:
    info = vmm.api.ok("GET", "/")
    assert isinstance(info, dict)
    return info["state"]


def test_pause_and_resume(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP)
        for asked, is_now in (
            ("Resumed", "Running"),
            ("Paused", "Paused"),
            ("Paused", "Paused"),
            ("Resumed", "Running"),
        ):
            vmm.api.ok("PATCH", "/vm", {"state": asked})
            assert state(vmm) == is_now
        for action in ("pause vm", "resume vm"):
            assert vmm.stdout().count(f"'{action}' VMM action took ") == 2
        shown = vmm.api.ok("GET", "/vmmd/state")
        assert isinstance(shown, dict)
        assert shown["phase"] == "Running"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}),
        ("PATCH", "/machine-config", {"vcpu_count": 1}),
        ("PUT", "/boot-source", {"kernel_image_path": "/dev/null"}),
        ("PUT", "/actions", {"action_type": "InstanceStart"}),
        ("PUT", "/logger", {"level": "Info"}),
    ],
)
def test_configuration_is_over_once_it_runs(
    tmp_path: Path, method: str, path: str, body: object
) -> None:
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP)
        assert vmm.api.call(method, path, body) == (400, {"fault_message": AFTER})
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        assert vmm.api.call(method, path, body) == (400, {"fault_message": AFTER})


def test_a_reset_ends_the_process_well(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        started(vmm, RESET)
        assert vmm.wait() == 0
        lines = [line.split("] ", 1)[-1] for line in vmm.stdout().splitlines()]
        assert lines[-3:] == [
            "Vmm is stopping.",
            "Killing vCPU threads",
            "Firecracker exiting successfully. exit_code=0",
        ]
        assert not vmm.stderr()
        assert vmm.sock.is_socket()


def test_a_triple_fault_does_not(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        started(vmm, TRIPLE)
        assert vmm.wait() == 1
        assert "fc_vcpu 0] Unexpected exit reason on vcpu run: Shutdown" in vmm.stdout()
        assert "Firecracker exiting with error. exit_code=1" in vmm.stdout()


def test_the_boot_timer_logs(tmp_path: Path) -> None:
    with daemon(tmp_path, "--boot-timer") as vmm:
        started(vmm, TIMER)
        assert vmm.wait() == 0
        assert "[anonymous-instance:fc_vcpu 0] Guest-boot-time = " in vmm.stdout()


def test_a_config_file_starts_and_no_api_ends_with_the_guest(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel_image(RESET))
    config = {"boot-source": {"kernel_image_path": "kernel"}, "drives": []}
    (tmp_path / "config").write_text(json.dumps(config))
    with daemon(tmp_path, "--no-api", "--config-file", "config") as vmm:
        assert vmm.wait() == 0
        text = "Successfully started microvm that was configured from one single json"
        assert text in vmm.stdout()


def test_a_drive_gets_another_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(bytes(8192))
    two.write_bytes(bytes(65536))
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP, one)
        update = {"drive_id": "one", "path_on_host": str(two)}
        vmm.api.ok("PATCH", "/drives/one", update)
        shown = vmm.api.ok("GET", "/vm/config")
        assert isinstance(shown, dict)
        assert shown["drives"][0]["path_on_host"] == str(two)
        gone = {"drive_id": "one", "path_on_host": str(tmp_path / "gone")}
        status, answer = vmm.api.call("PATCH", "/drives/one", gone)
        assert status == 400
        assert "Unable to patch the block device" in str(answer)
        assert "No such file or directory (os error 2)" in str(answer)
        assert vmm.api.ok("GET", "/vm/config") == shown


def test_a_patch_of_one_limit_leaves_the_other(tmp_path: Path) -> None:
    disk, other = tmp_path / "one", tmp_path / "two"
    disk.write_bytes(bytes(8192))
    other.write_bytes(bytes(8192))
    ops = {"size": 5, "one_time_burst": None, "refill_time": 100}
    bandwidth = {"size": 4096, "one_time_burst": 9, "refill_time": 50}
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP, disk)
        steps = (
            ({"rate_limiter": {"ops": ops}}, {"bandwidth": None, "ops": ops}),
            (
                {"rate_limiter": {"bandwidth": bandwidth}, "path_on_host": str(other)},
                {"bandwidth": bandwidth, "ops": ops},
            ),
            (
                {"rate_limiter": {"ops": {"size": 0, "refill_time": 0}}},
                {"bandwidth": bandwidth, "ops": None},
            ),
        )
        for update, limits in steps:
            vmm.api.ok("PATCH", "/drives/one", {"drive_id": "one", **update})
            shown = vmm.api.ok("GET", "/vm/config")
            assert isinstance(shown, dict)
            assert shown["drives"][0]["rate_limiter"] == limits


def test_a_disk_that_is_no_multiple_of_a_sector_is_told(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(bytes(1000))
    other = tmp_path / "other"
    other.write_bytes(bytes(700))
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP, odd)
        update = {"drive_id": "odd", "path_on_host": str(other)}
        vmm.api.ok("PATCH", "/drives/odd", update)
        for size in (1000, 700):
            line = (
                f"Disk size {size} is not a multiple of sector size 512; the remainder "
                "will not be visible to the guest."
            )
            assert vmm.stdout().count(line) == 1


def test_ctrl_alt_del_is_taken_until_the_keyboard_is_full(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP)
        press = {"action_type": "SendCtrlAltDel"}
        for _ in range(4):
            vmm.api.ok("PUT", "/actions", press)
        status, answer = vmm.api.call("PUT", "/actions", press)
        assert status == 400
        assert "Internal VMM error" in str(answer)


def test_a_start_that_fails_can_be_tried_again(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        configured(vmm, LOOP)
        kernel = tmp_path / "kernel"
        good = kernel.read_bytes()
        kernel.write_bytes(good[:100])
        start = {"action_type": "InstanceStart"}
        assert vmm.api.call("PUT", "/actions", start)[0] == 400
        assert state(vmm) == "Not started"
        kernel.write_bytes(good)
        vmm.api.ok("PUT", "/actions", start)
        end = time.monotonic() + DEADLINE_S
        while "V" not in vmm.stdout().splitlines()[-1] and time.monotonic() < end:
            vmm.api.ok("GET", "/")
        assert state(vmm) == "Running"


def test_a_template_for_another_processor_is_refused(tmp_path: Path) -> None:
    """No host is both an Intel and an AMD one."""
    with daemon(tmp_path) as vmm:
        configured(vmm, LOOP)
        answers = []
        for template in ("T2", "T2A"):
            vmm.api.ok("PATCH", "/machine-config", {"cpu_template": template})
            start = {"action_type": "InstanceStart"}
            status, answer = vmm.api.call("PUT", "/actions", start)
            assert status == 400
            answers.append(str(answer))
        assert "CPU vendor mismatched between actual CPU" in "".join(answers)
        assert all("Failed to get CPU template: " in text for text in answers)
        vmm.api.ok("PATCH", "/machine-config", {"cpu_template": "None"})
        vmm.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})


def test_a_request_waits_for_the_config_file(tmp_path: Path) -> None:
    """Whoever asks at once sees the machine of the file, never one before it."""
    (tmp_path / "kernel").write_bytes(kernel_image(LOOP))
    config = {"boot-source": {"kernel_image_path": "kernel"}, "drives": []}
    (tmp_path / "config").write_text(json.dumps(config))
    with daemon(tmp_path, "--config-file", "config") as vmm:
        assert state(vmm) == "Running"
        lines = [line.split("] ", 1)[-1] for line in vmm.stdout().splitlines()]
        text = "Successfully started microvm that was configured from one single json"
        assert lines.index("API server started.") < lines.index(text)


def test_a_pipe_in_a_drives_place_is_refused(tmp_path: Path) -> None:
    disk, pipe = tmp_path / "disk", tmp_path / "pipe"
    disk.write_bytes(bytes(512))
    os.mkfifo(pipe)
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP, disk)
        update = {"drive_id": "disk", "path_on_host": str(pipe)}
        status, answer = vmm.api.call("PATCH", "/drives/disk", update)
        assert status == 400
        assert f"Invalid seek (os error 29) {pipe}" in str(answer)
