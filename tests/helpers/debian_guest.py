"""A Debian guest with an ssh server, in a network namespace of its own.

The namespace has a tap per interface of the guest; on the n-th, the host is
10.20.n.1 and the guest 10.20.n.2. Needs root and the lab's images.
"""

from __future__ import annotations

import os
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

    from lab.images import Guest, Images

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


@dataclass(frozen=True, slots=True)
class Shape:
    """What a guest is started with.

    ``mmds_version``: eth0 has the metadata service too, "V1" or "V2"; None: no.
    """

    kernel: Guest
    interfaces: int = 1
    vcpus: int = 1
    mem_mib: int = 256
    track_dirty_pages: bool = False
    verbs: str = "ssh,sleep"
    mmds_version: str | None = None


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
    with process(images, folder, where) as guest:
        disk = copy_of(images.debian.rootfs, folder)
        shape = Shape(images.cloud, interfaces, mmds_version=mmds_version)
        start(guest.api, disk, shape)
        guest.monitor.expect("VMMD-GUEST-SSH")
        yield guest


@contextmanager
def process(
    images: Images, folder: Path, where: Namespace, jail: Path | None = None
) -> Iterator[DebianGuest]:
    """A monitor that has no guest yet; its socket and log are in ``folder``.

    ``jail``: its root folder, which holds ``folder``.
    """
    log, key, sock = folder / "log", folder / "key", folder / "sock"
    log.touch()
    shutil.copy(images.debian.key, key)
    key.chmod(0o600)
    seen = [f"/{path.relative_to(jail or '/')}" for path in (sock, log)]
    command = [sys.executable, "-c", FIRECRACKER]
    command += ["--api-sock", seen[0], "--log-path", seen[1]]
    if jail is not None:
        command = in_jail(jail, command)
    api = UnixApi(sock)
    monitor = Monitor(where.command(*command), deadline_s=LIFE_S)
    with monitor, closing(api):
        yield DebianGuest(monitor, api, key, where, log)


def in_jail(jail: Path, command: list[str]) -> list[str]:
    """A command that sees ``jail`` as the root, with Python and this checkout in it."""
    here = os.getcwd()
    seen = [here, sys.prefix, "/usr", "/lib", "/lib64", "/dev", "/proc"]
    mounts = "".join(f'mkdir -p "$0{p}"; mount --rbind {p} "$0{p}"\n' for p in seen)
    script = f'{mounts}exec chroot "$0" env PYTHONPATH={here} "$@"'
    return ["unshare", "--mount", "sh", "-ec", script, str(jail), *command]


def copy_of(image: Path, folder: Path) -> Path:
    """A copy of a root file system that a guest may write to."""
    disk = folder / "root.ext4"
    subprocess.run(["cp", "--sparse=always", str(image), str(disk)], check=True)
    return disk


def start(api: UnixApi, disk: Path, shape: Shape) -> None:
    """Configure and start a guest that has ``disk`` as its root."""
    addresses = [
        f"vmmd.ip={guest_address(n)}/24" + (f",{host_address(0)}" if n == 0 else "")
        for n in range(shape.interfaces)
    ]
    words = [QUIET, "rw", f"vmmd.test={shape.verbs}", *addresses]
    machine = {"vcpu_count": shape.vcpus, "mem_size_mib": shape.mem_mib}
    track = {"track_dirty_pages": shape.track_dirty_pages}
    api.ok("PUT", "/machine-config", machine | track)
    source = {
        "kernel_image_path": str(shape.kernel.bzimage),
        "initrd_path": str(shape.kernel.initrd),
        "boot_args": " ".join(words),
    }
    api.ok("PUT", "/boot-source", source)
    drive = {"drive_id": "root", "path_on_host": str(disk), "is_root_device": True}
    api.ok("PUT", "/drives/root", drive | {"is_read_only": False})
    for n in range(shape.interfaces):
        body = {"iface_id": f"eth{n}", "host_dev_name": tap(n)}
        mac = {"guest_mac": f"06:00:0a:14:{n:02x}:02"}
        api.ok("PUT", f"/network-interfaces/eth{n}", body | mac)
    if shape.mmds_version is not None:
        mmds = {"version": shape.mmds_version, "network_interfaces": ["eth0"]}
        api.ok("PUT", "/mmds/config", mmds)
    api.ok("PUT", "/actions", {"action_type": "InstanceStart"})
