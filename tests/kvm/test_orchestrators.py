"""Machines as orchestrators describe them: their files, flags and signals.

Paths are relative, as those of firecracker-containerd are. What each says is from
its source: Kata's fc.go, flintlock's config.go and create.go, microvm.nix's
firecracker.nix.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.helpers.daemon import Daemon, daemon
from tests.helpers.network import make_persistent, own_network
from tests.helpers.nic import needs_root
from tests.helpers.poll import until
from tests.kvm.test_api import LOOP, state
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmmd.actions import JsonValue

STARTED = "Successfully started microvm that was configured from one single json"
SIGHUP_CODE = 156
PLACEHOLDERS = 8
SMALL: dict[str, JsonValue] = {"vcpu_count": 1, "mem_size_mib": 64, "smt": False}
NIC: dict[str, JsonValue] = {
    "iface_id": "eth0",
    "host_dev_name": "tap0",
    "guest_mac": "06:00:00:00:00:02",
}


def described(folder: Path, config: dict[str, JsonValue]) -> Path:
    """The folder with a configuration in it, and what that names."""
    (folder / "kernel").write_bytes(kernel_image(LOOP))
    (folder / "empty").touch()
    source = {"kernel_image_path": "kernel", "initrd_path": None}
    (folder / "config").write_text(json.dumps({"boot-source": source, **config}))
    return folder


def read_now(path: Path) -> Iterator[dict[str, JsonValue]]:
    """The lines that a FIFO has."""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield from map(json.loads, os.read(reader, 1 << 16).splitlines())
    os.close(reader)


@needs_root
def test_kata(tmp_path: Path) -> None:
    """Disks that are empty until a container comes; FIFOs that nobody reads yet."""
    drives: list[JsonValue] = [
        {
            "drive_id": f"drive_{number}",
            "path_on_host": "empty",
            "is_root_device": False,
            "is_read_only": False,
        }
        for number in range(PLACEHOLDERS)
    ]
    config: dict[str, JsonValue] = {
        "machine-config": SMALL,
        "drives": drives,
        "network-interfaces": [NIC | {"rx_rate_limiter": {}, "tx_rate_limiter": {}}],
        "logger": {"log_path": "log", "level": "Debug"},
        "metrics": {"metrics_path": "metrics"},
    }
    for name in ("log", "metrics"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "container").write_bytes(bytes(4096))
    with ExitStack() as stack:
        stack.enter_context(own_network())
        make_persistent("tap0")
        folder = described(tmp_path, config)
        vmm = stack.enter_context(daemon(folder, "--config-file", "config"))
        assert state(vmm) == "Running"
        update: dict[str, JsonValue] = {
            "drive_id": "drive_3",
            "path_on_host": "container",
            "rate_limiter": None,
        }
        vmm.api.ok("PATCH", "/drives/drive_3", update)
        (line,) = read_now(tmp_path / "metrics")
        assert {"block_drive_3", "block", "net_eth0", "net", "vsock"} <= set(line)
        vmm.process.terminate()
        assert vmm.wait() == -signal.SIGTERM


@needs_root
def test_flintlock(tmp_path: Path) -> None:
    """No API: a file of metadata, the last line of the metrics, and SIGHUP."""
    config: dict[str, JsonValue] = {
        "machine-config": SMALL,
        "drives": [],
        "network-interfaces": [NIC],
        "mmds-config": {"version": "V1", "network_interfaces": ["eth0"]},
        "logger": {"log_path": "log", "level": "Info", "show_level": True},
        "metrics": {"metrics_path": "metrics"},
    }
    for name in ("log", "metrics"):
        (tmp_path / name).touch()
    (tmp_path / "metadata").write_text('{"latest": {"user-data": "x"}}')
    arguments = (
        "--id",
        "01GB-x",
        "--boot-timer",
        "--no-api",
        "--config-file",
        "config",
    )
    with ExitStack() as stack:
        stack.enter_context(own_network())
        make_persistent("tap0")
        folder = described(tmp_path, config)
        vmm = stack.enter_context(daemon(folder, *arguments, "--metadata", "metadata"))
        log = tmp_path / "log"
        until(lambda: STARTED in log.read_text())
        vmm.process.send_signal(signal.SIGHUP)
        assert vmm.wait() == SIGHUP_CODE
    assert "Successfully added metadata to mmds from file" in log.read_text()
    assert json.loads((tmp_path / "metrics").read_text().splitlines()[-1])["net_eth0"]


def test_microvm_nix(tmp_path: Path) -> None:
    """What is not wanted is null; what is not known at the top is let be."""
    nothing = ("vsock", "balloon", "entropy", "logger", "metrics", "mmds-config")
    config: dict[str, JsonValue] = {
        "machine-config": SMALL,
        "drives": [],
        **dict.fromkeys(nothing),
        "not-of-this-version": {"x": 1},
    }
    with daemon(described(tmp_path, config), "--config-file", "config") as vmm:
        assert_started(vmm)
        vmm.api.ok("PUT", "/actions", {"action_type": "SendCtrlAltDel"})


def assert_started(vmm: Daemon) -> None:
    assert state(vmm) == "Running"
    assert STARTED in vmm.stdout()
