"""``vmmd snapshot`` and ``vmmd run --restore`` with Debian's kernel."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.helpers.commands import vmmd
from tests.helpers.guest import Monitor, cmdline
from tests.helpers.unix_api import UnixApi

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images

VMMD = [sys.executable, "-m", "vmmd"]
SCRIPT = "echo written by the guest >/kept; sync; cat /kept"


def run(images: Images, disk: Path, sock: Path) -> list[str]:
    """The command that boots the guest."""
    return [
        *(*VMMD, "run", "--kernel", str(images.cloud.bzimage)),
        *("--initrd", str(images.cloud.initrd), "--mem", "256M", "--cpus", "2"),
        *("--drive", str(disk), "--root", "--track-dirty-pages"),
        *("--cmdline", cmdline("run,echo,poweroff", more="rw", script=SCRIPT)),
        *("--api-sock", str(sock)),
    ]


@pytest.mark.timeout(240)
def test_saved_merged_and_restored_by_the_commands(
    guest_images: Images, tmp_path: Path
) -> None:
    disk, sock = tmp_path / "root.ext4", tmp_path / "sock"
    shutil.copy(guest_images.rootfs, disk)
    base, diff = tmp_path / "base", tmp_path / "diff"
    with (
        Monitor(run(guest_images, disk, sock), deadline_s=150) as monitor,
        closing(UnixApi(sock)) as api,
    ):
        monitor.expect("VMMD-GUEST-ECHO")
        vmmd("snapshot", "create", sock, base)
        targets = vmmd("snapshot", "targets", sock).stdout
        monitor.send("are you there\n")  # saved and looked at, it goes on
        monitor.expect("you said: are you there")
        api.ok("PATCH", "/vm", {"state": "Paused"})
        vmmd("snapshot", "create", sock, diff, "--diff")
        # A booted guest's drivers suppress notifications.
        assert "\n1.1.0     yes, but\n" in targets
        refused = "0.25.0    refused: The virtio devices use a features"
        assert refused in targets
        shutil.copy(disk, tmp_path / "copy.ext4")
    vmmd("snapshot", "rebase", base, diff)
    vmmd("snapshot", "verify", base)
    old = ("snapshot", "translate", base / "vm.state", "0.25.0", "--dry-run")
    assert "notification suppression" in vmmd(*old, code=1).stderr
    shown = vmmd("snapshot", "inspect", base / "vm.state").stdout
    assert "vcpu 1: version " in shown
    restore = [*VMMD, "run", "--restore", str(base)]
    drive = ["--drive", f"drive0={tmp_path / 'copy.ext4'}"]
    with Monitor([*restore, *drive], deadline_s=100) as monitor:
        monitor.send("still there\n")
        monitor.expect("you said: still there")
        monitor.send("quit\n")
        assert monitor.finish() == 0
