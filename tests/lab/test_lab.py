"""The lab itself: QEMU's microVM boots the guest images in it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.helpers.guest import Monitor, boot, cmdline, qemu_microvm

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images


def test_microvm_boots_the_guest_image_and_powers_off(guest_images: Images) -> None:
    done = boot(qemu_microvm(guest_images.cloud, cmdline("hello,cpus")))
    assert "VMMD-GUEST-READY" in done.output
    assert "VMMD-GUEST-CPUS 1" in done.output
    assert done.child.returncode == 0


def test_the_guest_s_root_file_system_keeps_what_is_written(
    guest_images: Images, tmp_path: Path
) -> None:
    disk = tmp_path / "root.ext4"
    shutil.copy(guest_images.rootfs, disk)
    arguments = cmdline(
        "run", more="root=/dev/vda rw", script="echo kept >/kept; df -T /"
    )
    done = boot(qemu_microvm(guest_images.cloud, arguments, drive=str(disk)))
    assert "VMMD-GUEST-RAN 0" in done.output
    assert "ext4" in done.output
    again = cmdline("run", more="root=/dev/vda ro", script="cat /kept")
    assert (
        "kept" in boot(qemu_microvm(guest_images.cloud, again, drive=str(disk))).output
    )


def test_a_reboot_ends_the_microvm(guest_images: Images) -> None:
    # It has no keyboard controller; by a triple fault, then.
    done = boot(qemu_microvm(guest_images.cloud, cmdline("reboot", more="reboot=t")))
    assert "VMMD-GUEST-READY" in done.output
    assert done.child.returncode == 0


def test_the_console_echoes(guest_images: Images) -> None:
    with Monitor(qemu_microvm(guest_images.cloud, cmdline("echo"))) as monitor:
        monitor.expect("VMMD-GUEST-ECHO")
        monitor.send("hello guest\n")
        monitor.expect("you said: hello guest")
        monitor.send("quit\n")
        assert monitor.finish() == 0
