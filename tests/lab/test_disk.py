"""A Debian guest on its ext4 disk: what it writes is there, and the disk is sound."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab.kernels import sbin
from tests.helpers.guest import boot, cmdline, vmmd

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images

# Small files, a large one past the page cache's first write-out, a hole, a rename.
WRITE = """
set -e
mkdir /data
for n in 1 2 3 4 5 6 7 8 9; do echo "file $n" >/data/$n; done
dd if=/dev/urandom of=/data/large bs=64k count=96 conv=fsync 2>/dev/null
dd if=/dev/zero of=/data/hole bs=1k count=1 seek=4000 2>/dev/null
mv /data/9 /data/nine
sha256sum /data/large
grep ' / ' /proc/mounts
"""
CHECK = """
set -e
sha256sum /data/large
cat /data/1 /data/nine
stat -c 'hole %s' /data/hole
! touch /data/refused
"""


@pytest.fixture
def disk(guest_images: Images, tmp_path: Path) -> Path:
    """A copy of the root file system."""
    path = tmp_path / "root.ext4"
    shutil.copy(guest_images.rootfs, path)
    return path


def run(images: Images, drive: str, mode: str, script: str) -> str:
    """What a script printed on that root; the guest's poweroff ended vmmd with 0."""
    arguments = cmdline("run,poweroff", more=f"root=/dev/vda {mode}", script=script)
    cloud = images.cloud
    done = boot(vmmd(cloud.bzimage, cloud, arguments, more=("--drive", drive)))
    assert "VMMD-GUEST-RAN 0" in done.output, done.output
    assert done.child.returncode == 0
    return done.output


def digest(output: str) -> str:
    found = re.search(r"^([0-9a-f]{64})  /data/large$", output, re.MULTILINE)
    assert found, output
    return found[1]


def test_a_root_file_system_is_written_and_sound(
    guest_images: Images, disk: Path
) -> None:
    written = run(guest_images, str(disk), "rw", WRITE)
    assert "/dev/root / ext4 rw" in written or "/dev/vda / ext4 rw" in written
    fsck = subprocess.run([sbin("e2fsck"), "-fn", disk], capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stdout
    before = disk.read_bytes()
    read = run(guest_images, f"{disk},ro", "ro", CHECK)
    assert digest(read) == digest(written)
    assert "file 1\nfile 9\nhole 4097024\n" in read
    assert disk.read_bytes() == before
