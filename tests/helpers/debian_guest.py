"""A Debian guest with an ssh server, in a network namespace of its own.

The namespace has a tap per interface of the guest; on the n-th, the host is
10.20.n.1 and the guest 10.20.n.2. Needs root and the lab's images.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.helpers.guest import QUIET, Monitor
from tests.helpers.unix_api import UnixApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.images import Images

FIRECRACKER = (
    "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
)
LIFE_S = 900.0
CALL_DEADLINE_S = 150.0
_OPTIONS = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "BatchMode": "yes",
    "ConnectTimeout": "100",
    # What an emulated processor computes soonest.
    "Ciphers": "aes128-ctr",
    "MACs": "hmac-sha1",
}


def tap(number: int) -> str:
    """The host's name of the guest's interface ``eth<number>``."""
    return f"tap{number}"


def host_address(number: int) -> str:
    """The host's address on that interface's network."""
    return f"10.20.{number}.1"


def guest_address(number: int) -> str:
    """The guest's address on that interface."""
    return f"10.20.{number}.2"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace of the host, by name."""

    name: str

    def command(self, *words: str) -> list[str]:
        """``words`` as a command within the namespace."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str, timeout_s: float = CALL_DEADLINE_S) -> str:
        """What a command that must succeed prints there."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, commands: str) -> None:
        """Commands of ``ip``, one a line."""
        arguments = ["ip", "-netns", self.name, "-batch", "-"]
        done = subprocess.run(arguments, input=commands, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """A new namespace with ``lo`` up; deleted at the end."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Namespace(name)
        made.ip("link set lo up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def add_taps(where: Namespace, count: int) -> None:
    """Taps for that many interfaces, each with the host's address, up."""
    lines = [
        f"tuntap add dev {tap(n)} mode tap\n"
        f"addr add {host_address(n)}/24 dev {tap(n)}\n"
        f"link set {tap(n)} up"
        for n in range(count)
    ]
    where.ip("\n".join(lines))


@dataclass(frozen=True, slots=True)
class DebianGuest:
    """The guest, its monitor's API and log, and the namespace that it is in."""

    monitor: Monitor
    api: UnixApi
    key: Path
    where: Namespace
    log: Path

    def ssh_command(self, number: int, *words: str) -> list[str]:
        """``ssh`` to an interface of the guest, to run a command there."""
        options = ssh_options(self.key)
        return self.where.command(
            "ssh", *options, f"root@{guest_address(number)}", *words
        )

    def ssh(
        self, command: str, number: int = 0, timeout_s: float = CALL_DEADLINE_S
    ) -> str:
        """What a shell command that must succeed prints in the guest."""
        done = subprocess.run(
            self.ssh_command(number, command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def scp(self, source: str, target: str, timeout_s: float) -> None:
        """Copy a file; the guest's end is ``GUEST:/path``."""
        place = f"root@{guest_address(0)}:"
        ends = (end.replace("GUEST:", place) for end in (source, target))
        options = ssh_options(self.key)
        self.where.run("scp", "-q", *options, *ends, timeout_s=timeout_s)


def ssh_options(key: Path) -> list[str]:
    """Options of ssh and scp for a host that nobody knows."""
    options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
    return ["-i", str(key), *options]


@contextmanager
def debian_guest(
    images: Images,
    folder: Path,
    where: Namespace,
    interfaces: int,
    mmds_version: str = "V2",
) -> Iterator[DebianGuest]:
    """A guest whose ssh server runs, on ``interfaces`` taps that are there; eth0
    has the metadata service too."""
    disk, log = folder / "root.ext4", folder / "log"
    subprocess.run(
        ["cp", "--sparse=always", str(images.debian.rootfs), str(disk)], check=True
    )
    log.touch()
    command = where.command(sys.executable, "-c", FIRECRACKER)
    command += ["--api-sock", str(folder / "sock"), "--log-path", str(log)]
    api = UnixApi(folder / "sock")
    with Monitor(command, deadline_s=LIFE_S) as monitor, closing(api):
        _configure(api, images, disk, interfaces)
        mmds = {"version": mmds_version, "network_interfaces": ["eth0"]}
        api.ok("PUT", "/mmds/config", mmds)
        api.ok("PUT", "/actions", {"action_type": "InstanceStart"})
        monitor.expect("VMMD-GUEST-SSH")
        key = folder / "key"
        shutil.copy(images.debian.key, key)
        key.chmod(0o600)
        yield DebianGuest(monitor, api, key, where, log)


def _configure(api: UnixApi, images: Images, disk: Path, interfaces: int) -> None:
    addresses = [
        f"vmmd.ip={guest_address(n)}/24" + (f",{host_address(0)}" if n == 0 else "")
        for n in range(interfaces)
    ]
    words = [QUIET, "rw", "vmmd.test=ssh,sleep", *addresses]
    api.ok("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 256})
    source = {
        "kernel_image_path": str(images.cloud.bzimage),
        "initrd_path": str(images.cloud.initrd),
        "boot_args": " ".join(words),
    }
    api.ok("PUT", "/boot-source", source)
    drive = {"drive_id": "root", "path_on_host": str(disk), "is_root_device": True}
    api.ok("PUT", "/drives/root", drive | {"is_read_only": False})
    for n in range(interfaces):
        body = {"iface_id": f"eth{n}", "host_dev_name": tap(n)}
        mac = {"guest_mac": f"06:00:0a:14:{n:02x}:02"}
        api.ok("PUT", f"/network-interfaces/eth{n}", body | mac)
