"""The metrics of a small guest: at the start, when asked, and at the end."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import Daemon, daemon
from tests.kvm.test_api import LOOP, RESET, configured, started
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from pathlib import Path

FLUSH = {"action_type": "FlushMetrics"}
START = {"action_type": "InstanceStart"}
SIGHUP_CODE = 156


def metrics(path: Path) -> list[dict[str, dict[str, int]]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def measured(vmm: Daemon) -> Path:
    path = vmm.folder / "metrics"
    vmm.api.ok("PUT", "/metrics", {"metrics_path": str(path)})
    return path


def test_counts_are_of_the_time_since_the_line_before(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        path = measured(vmm)
        started(vmm, LOOP)
        vmm.api.ok("PUT", "/actions", FLUSH)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        vmm.api.ok("PUT", "/actions", FLUSH)
        first, second, third = metrics(path)
    requests = [line["put_api_requests"] for line in (first, second, third)]
    assert [line["boot_source_count"] for line in requests] == [1, 0, 0]
    assert sum(line["actions_count"] for line in requests) == 3
    assert first["latencies_us"]["pause_vm"] == 0
    assert (
        third["latencies_us"]["pause_vm"] >= third["latencies_us"]["vmm_pause_vm"] > 0
    )


def test_what_the_guest_does_is_counted(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    with daemon(tmp_path) as vmm:
        path = measured(vmm)
        started(vmm, RESET, disk)
        assert vmm.wait() == 0
    lines = metrics(path)
    assert sum(line["vcpu"]["exit_io_out"] for line in lines) == 2
    assert sum(line["vcpu"]["exit_io_in"] for line in lines) == 0
    assert sum(line["uart"]["write_count"] for line in lines) == 1
    assert sum(line["i8042"]["reset_count"] for line in lines) == 1
    assert lines[-1]["block_disk"] == lines[-1]["block"]


def test_a_config_file_a_flag_and_a_signal(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel_image(LOOP))
    config = {"boot-source": {"kernel_image_path": "kernel"}, "drives": []}
    (tmp_path / "one").write_text(json.dumps(config))
    (tmp_path / "two").write_text(
        json.dumps({**config, "metrics": {"metrics_path": "m"}})
    )
    for arguments in (("one", "--metrics-path", "m"), ("two",)):
        (tmp_path / "m").unlink(missing_ok=True)
        with daemon(tmp_path, "--config-file", *arguments) as vmm:
            vmm.api.ok("PUT", "/actions", FLUSH)
            vmm.process.send_signal(signal.SIGHUP)
            assert vmm.wait() == SIGHUP_CODE
        vmm.sock.unlink()
        assert [x["signals"]["sighup"] for x in metrics(tmp_path / "m")] == [0, 0, 1]
    with daemon(tmp_path, "--config-file", "two", "--metrics-path", "m") as vmm:
        assert vmm.wait() == 1
        assert "Reinitialization of metrics not allowed." in vmm.stderr()


def test_a_fifo_that_nobody_reads(tmp_path: Path) -> None:
    fifo = tmp_path / "metrics"
    os.mkfifo(fifo)
    with daemon(tmp_path) as vmm:
        measured(vmm)
        configured(vmm, LOOP)
        vmm.api.ok("PUT", "/actions", START)
        answers = [vmm.api.call("PUT", "/actions", FLUSH) for _ in range(20)]
        text = (
            "Internal VMM error: Metrics error: "
            "Resource temporarily unavailable (os error 11)"
        )
        assert answers[-1] == (400, {"fault_message": text})
        missed = answers.count(answers[-1])
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        data = os.read(reader, 1 << 16)
        vmm.api.ok("PUT", "/actions", FLUSH)
        with suppress(BlockingIOError):
            data += os.read(reader, 1 << 16)
        os.close(reader)
    lines = [json.loads(line) for line in data.splitlines()]
    assert lines[-1]["logger"]["missed_metrics_count"] == missed
    # What a line that was missed would have told, the next one tells.
    assert sum(line["put_api_requests"]["actions_count"] for line in lines) == 22


def test_what_cannot_be_written_is_in_the_log(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        vmm.api.ok("PUT", "/metrics", {"metrics_path": "/dev/full"})
        started(vmm, RESET)
        assert vmm.wait() == 0
        why = "No space left on device (os error 28)"
        assert f"Failed to write metrics: {why}" in vmm.stdout()
        assert f"Failed to write metrics while stopping: {why}" in vmm.stdout()


def test_of_a_process_without_a_guest_only_the_signal_that_ends_it_is_told(
    tmp_path: Path,
) -> None:
    told = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        with daemon(tmp_path) as vmm:
            path = measured(vmm)
            vmm.process.send_signal(number)
            vmm.wait()
        vmm.sock.unlink(missing_ok=True)
        told[number] = metrics(path)
        path.unlink()
    assert told[signal.SIGTERM] == []
    (line,) = told[signal.SIGHUP]
    assert line["signals"]["sighup"] == 1
    assert line["put_api_requests"]["metrics_count"] == 1


@pytest.mark.parametrize("body", [{}, {"metrics_path": 1}])
def test_a_request_that_is_none_is_counted_as_failed(
    tmp_path: Path, body: object
) -> None:
    with daemon(tmp_path) as vmm:
        assert vmm.api.call("PUT", "/metrics", body)[0] == 400
        path = measured(vmm)
        started(vmm, LOOP)
        vmm.api.ok("PUT", "/actions", FLUSH)
    counted = metrics(path)[0]["put_api_requests"]
    assert (counted["metrics_count"], counted["metrics_fails"]) == (2, 1)
