"""A Debian root file system with an ssh server, from the distribution's packages.

``mmdebstrap`` makes it (as root or in a user namespace) with the machine's own
apt sources, ``mke2fs -d`` an ext4 image of it. Its init is the one of the other
images (guest-init.sh), whose verb ``ssh`` starts the server.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import cache, kernels
from lab.cache import LabError, say

SIZE_MIB = 512
PACKAGES = (
    *("dropbear-bin", "iproute2", "iputils-ping", "curl", "iperf3"),
    *("openssh-client", "openssh-sftp-server", "procps", "ethtool", "e2fsprogs"),
)
# Nobody reads them in a guest; two thirds of the size.
_EXCLUDED = ("doc", "man", "locale", "info", "i18n", "zoneinfo")
_RECIPE = ("debian.py", "guest-init.sh")


@dataclass(frozen=True, slots=True)
class Debian:
    """``rootfs`` is ext4; copy it before a guest writes to it. ``key`` is the
    private key that root's account there takes."""

    rootfs: Path
    key: Path


def listed(folder: Path) -> Debian:
    """The image and key in a folder that :func:`made` gave."""
    return Debian(folder / "debian.ext4", folder / "key")


def made(busybox: Path) -> Path:
    """The folder of the image, made if it is not there; LabError: it cannot be."""
    recipe = cache.digest((*_RECIPE, str(busybox)), *_versions())
    return cache.entry(f"debian-{recipe}", lambda work: _build(work, busybox))


def _versions() -> list[str]:
    """Name and version of each package that would be installed now."""
    shown = subprocess.run(
        ["apt-cache", "policy", *PACKAGES], capture_output=True, text=True
    ).stdout
    found = re.findall(r"^(\S+):\n.*\n  Candidate: (\S+)", shown, re.MULTILINE)
    return [f"{name} {version}" for name, version in found]


def _build(work: Path, busybox: Path) -> None:
    say("making a Debian root file system with an ssh server")
    kernels.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / "key")]
    )
    tar = work / "tree.tar"
    kernels.run(_mmdebstrap(work, busybox, tar))
    steps = (
        'mkdir tree && tar -C tree -xpf tree.tar && "$0" "$@" && rm -r tree tree.tar'
    )
    command = [kernels.sbin("mke2fs"), "-q", "-t", "ext4", "-E", "root_owner=0:0"]
    command += ["-d", "tree", "debian.ext4", f"{SIZE_MIB}M"]
    kernels.run(["fakeroot", "sh", "-ec", steps, *command], cwd=work)


def _mmdebstrap(work: Path, busybox: Path, tar: Path) -> list[str]:
    """The command; what stands in ``work`` and this folder is copied in."""
    copies = {
        busybox: "/bin/busybox",
        cache.HERE / "guest-init.sh": "/sbin/init",
        work / "key.pub": "/root/.ssh/authorized_keys",
    }
    hooks = [
        'chroot "$1" dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key',
        'mkdir -p "$1/root/.ssh" "$1/usr/lib/busybox"',
        *(f'cp "{source}" "$1{target}"' for source, target in copies.items()),
        'chmod 755 "$1/bin/busybox" "$1/sbin/init"; chmod -R go= "$1/root/.ssh"',
        'chroot "$1" /bin/busybox --install -s /usr/lib/busybox',
        'chroot "$1" usermod -p "*" root',
        'rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*',
    ]
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _EXCLUDED]
    return [
        *("mmdebstrap", "--quiet", "--variant=minbase", *excluded),
        f"--include={','.join(PACKAGES)}",
        '--essential-hook=mkdir -p "$1/etc/dropbear"',
        *(f"--customize-hook={hook}" for hook in hooks),
        *(_suite(), str(tar), *sources()),
    ]


def _suite() -> str:
    text = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    if found is None:
        raise LabError("/etc/os-release names no Debian release: the lab needs one")
    return found[1]


def sources() -> list[str]:
    """The files that say where this machine's packages come from."""
    folder = Path("/etc/apt")
    names = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    files = [path for path in names if path.suffix in (".list", ".sources")]
    return [str(path) for path in files if os.access(path, os.R_OK)]
