"""`vmmd run --net` with a Debian guest: it reaches the world, leaves no trace, and
is reached again in another process that has its snapshot."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.commands import vmmd as run
from tests.helpers.debian_guest import Namespace, namespace, ssh_options
from tests.helpers.guest import Monitor, cmdline, vmmd
from tests.helpers.poll import until

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images

WORLD = "192.0.2.1"


def left(where: Namespace) -> list[str]:
    """Interfaces and tables of the namespace, and whether it forwards."""
    links = where.run("sh", "-c", "ip -br link | cut -d' ' -f1 | cut -d@ -f1").split()
    tables = where.run("nft", "list", "tables").splitlines()
    forwarding = where.run("cat", "/proc/sys/net/ipv4/ip_forward").strip()
    return [*sorted({*links} - {"lo"}), *tables, forwarding]


@pytest.mark.timeout(360)
def test_a_guest_that_reaches_the_world_by_nat(
    guest_images: Images, tmp_path: Path
) -> None:
    subprocess.run(["modprobe", "-a", "veth", "nf_tables", "nft_masq"], check=True)
    subprocess.run(["modprobe", "-a", "nft_chain_nat", "nft_ct"], check=True)
    disk, key, sock = (tmp_path / name for name in ("root.ext4", "key", "sock"))
    subprocess.run(
        ["cp", "--sparse=always", str(guest_images.debian.rootfs), str(disk)],
        check=True,
    )
    shutil.copy(guest_images.debian.key, key)
    key.chmod(0o600)
    cloud = guest_images.cloud
    command = vmmd(
        cloud.bzimage,
        cloud,
        cmdline("ssh,sleep", more="rw"),
        more=("--root", "--drive", str(disk), "--net", "--api-sock", str(sock)),
    )
    with namespace("home") as home, namespace("world") as world:
        home.ip(f"link add up0 type veth peer name down0 netns {world.name}")
        home.ip("addr add 192.0.2.2/24 dev up0\nlink set up0 up")
        home.ip(f"route add default via {WORLD}")
        # It has no way back to a guest's address: only NAT's answers arrive.
        world.ip(f"addr add {WORLD}/24 dev down0\nlink set down0 up")
        with Monitor(home.command(*command), deadline_s=230) as monitor:
            monitor.expect("VMMD-GUEST-SSH")
            found = re.search(r"the guest is (\S+), .* on (vmmd\d+)", monitor.output)
            assert found
            login = ["ssh", *ssh_options(key), f"root@{found[1]}"]
            home.run(*login, f"ping -c 3 -w 60 {WORLD}")
            run("snapshot", "create", sock, tmp_path / "saved")
            pid = monitor.child.pid
            assert left(home) == ["up0", found[2], f"table ip vmmd_{pid}", "1"]
            os.kill(pid, signal.SIGKILL)
            until(lambda: left(home) == ["up0", "0"], every_s=0.1)
        again = [sys.executable, "-m", "vmmd", "run", "--restore", tmp_path / "saved"]
        with Monitor(home.command(*map(str, again), "--net"), deadline_s=110) as other:
            other.expect(f"the guest is {found[1]}")
            home.run(*login, f"ping -c 3 -w 60 {WORLD}")
