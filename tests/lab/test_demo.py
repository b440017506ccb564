"""The demo's part that needs KVM, in the lab as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images


def test_the_demo_holds(guest_images: Images, tmp_path: Path) -> None:
    rootfs = str(guest_images.debian.rootfs)
    disk = str(tmp_path / "root.ext4")
    subprocess.run(["cp", "--sparse=always", rootfs, disk], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--inside", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "| VMMD-GUEST-CPUS 2",
        "| the answer is 42",
        "not even an echo",
        " 10.214.0.2/24",
        "| this was remembered",
    ):
        assert line in done.stdout
