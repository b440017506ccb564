"""A process that may have few descriptors says so, and goes on."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import Daemon, daemon
from tests.kvm.test_api import LOOP, configured, started

if TYPE_CHECKING:
    from pathlib import Path

START = {"action_type": "InstanceStart"}


def allow(vmm: Daemon, more: int) -> None:
    """So many descriptors more than the highest that it has."""
    pid = vmm.process.pid
    limit = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1 + more
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, 4096))


def held(vmm: Daemon) -> int:
    return len(os.listdir(f"/proc/{vmm.process.pid}/fd"))


def test_a_start_that_lacks_some_leaves_none_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    with daemon(tmp_path) as vmm:
        configured(vmm, LOOP, disk)
        before = None
        for more in range(40):
            allow(vmm, more)
            status, answer = vmm.api.call("PUT", "/actions", START)
            if status == 204:
                break
            assert "Too many open files" in str(answer) or "descriptors" in str(answer)
            before = before or held(vmm)
            assert held(vmm) == before
        assert more > 4


@pytest.mark.parametrize("more", range(4))
def test_a_patch_that_lacks_one_leaves_the_guest_its_drive(
    tmp_path: Path, more: int
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP, disk)
        before = held(vmm)
        allow(vmm, more)
        body = {"drive_id": "disk", "path_on_host": str(disk)}
        status, answer = vmm.api.call("PATCH", "/drives/disk", body)
        assert status == 400 or more, answer
        assert held(vmm) == before
        allow(vmm, 20)
        vmm.api.ok("PATCH", "/drives/disk", body)
