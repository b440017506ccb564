"""Debian's kernel configured, started, paused, resumed and reset over the API."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.helpers.guest import Monitor, cmdline
from tests.helpers.unix_api import UnixApi

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images

FIRECRACKER = (
    "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
)
SCRIPT = "echo written by the guest >/kept; sync; cat /kept"


def start(api: UnixApi, images: Images, disk: Path) -> None:
    arguments = cmdline("run,echo,cad", more="rw", script=SCRIPT)
    api.ok("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 256})
    source = {
        "kernel_image_path": str(images.cloud.bzimage),
        "initrd_path": str(images.cloud.initrd),
        "boot_args": arguments,
    }
    api.ok("PUT", "/boot-source", source)
    drive = {
        "drive_id": "root",
        "path_on_host": str(disk),
        "is_root_device": True,
        "is_read_only": False,
        "cache_type": "Writeback",
    }
    api.ok("PUT", "/drives/root", drive)
    api.ok("PUT", "/actions", {"action_type": "InstanceStart"})


def exits(api: UnixApi) -> dict[str, int]:
    """Synchronous exits and all exits of a paused or running guest."""
    match api.ok("GET", "/vmmd/state"):
        case {"vcpus": list(vcpus)}:
            counters = [vcpu["counters"] for vcpu in vcpus]
            return {
                "asked": sum(counter["asked"] for counter in counters),
                "all": sum(sum(c["exits"].values()) for c in counters),
            }
    raise AssertionError("no vCPUs in the state")


@pytest.mark.timeout(180)
def test_a_debian_guest_over_the_api(guest_images: Images, tmp_path: Path) -> None:
    disk = tmp_path / "root.ext4"
    shutil.copy(guest_images.rootfs, disk)
    command = [sys.executable, "-c", FIRECRACKER, "--api-sock", str(tmp_path / "sock")]
    api = UnixApi(tmp_path / "sock")
    with Monitor(command, deadline_s=150) as monitor, closing(api):
        start(api, guest_images, disk)
        monitor.expect("written by the guest")
        monitor.expect("VMMD-GUEST-ECHO")

        api.ok("PATCH", "/vm", {"state": "Paused"})
        assert api.call("PATCH", "/vm", {"state": "Paused"})[0] == 204
        monitor.send("are you there\n")
        still = exits(api)
        assert api.ok("GET", "/") == {
            "id": "anonymous-instance",
            "state": "Paused",
            "vmm_version": "1.16.1",
            "app_name": "Firecracker",
        }
        assert exits(api) == still
        assert still["asked"] <= 500 + 150

        api.ok("PATCH", "/vm", {"state": "Resumed"})
        monitor.expect("you said: are you there")
        monitor.send("quit\n")
        monitor.expect("VMMD-GUEST-WAITS")
        api.ok("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
        monitor.expect("VMMD-GUEST-CAD")
        assert monitor.finish() == 0
        print(f"exits of a Debian boot: {still}")
    found = subprocess.run(
        ["debugfs", "-R", "cat /kept", str(disk)], capture_output=True, check=True
    )
    assert found.stdout == b"written by the guest\n"
    checked = subprocess.run(["e2fsck", "-fy", str(disk)], capture_output=True)
    # After a reset the journal is replayed (1: corrected); nothing is lost (>= 4).
    assert checked.returncode in (0, 1), checked.stdout


def test_a_guest_that_powers_off_leaves_a_clean_disk(
    guest_images: Images, tmp_path: Path
) -> None:
    disk = tmp_path / "root.ext4"
    shutil.copy(guest_images.rootfs, disk)
    script = "dd if=/dev/urandom of=/big bs=64k count=64; md5sum /big >/sum; sync"
    command = [
        *(sys.executable, "-m", "vmmd", "run", "--root", "--drive", str(disk)),
        *("--kernel", str(guest_images.cloud.bzimage)),
        *("--initrd", str(guest_images.cloud.initrd)),
        *("--cmdline", cmdline("run,remount-ro,poweroff", more="rw", script=script)),
    ]
    with Monitor(command) as monitor:
        assert monitor.finish() == 0, monitor.output
    assert "VMMD-GUEST-RAN 0" in monitor.output
    checked = subprocess.run(["e2fsck", "-fn", str(disk)], capture_output=True)
    assert checked.returncode == 0, checked.stdout
    subprocess.run(
        ["debugfs", "-R", f"dump /big {tmp_path}/big", str(disk)], check=True
    )
    md5 = subprocess.run(["md5sum", str(tmp_path / "big")], capture_output=True)
    kept = subprocess.run(["debugfs", "-R", "cat /sum", str(disk)], capture_output=True)
    assert md5.stdout.split()[0] == kept.stdout.split()[0]
