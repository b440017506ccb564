"""Guest images: kernels in each form that boots, an initramfs, a root file system.

``python -m lab.images`` makes them (no root needed) and prints their paths.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache, cpio, debian, kernels
from lab.cache import LabError, say

if TYPE_CHECKING:
    from lab.debian import Debian

BUSYBOX = Path("/bin/busybox")
ROOTFS_MIB = 32
GUEST_MODULES = (
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "virtio_balloon",
    "virtio_rng",
    "crc32c_generic",  # asked for by name, which modules.dep does not say
    "ext4",
)
_ENVIRONMENT = "VMMD_LAB_IMAGES"
_DEBIAN = "VMMD_LAB_DEBIAN"
_RECIPE = ("images.py", "cpio.py", "kernels.py", "guest-init.sh")


@dataclass(frozen=True, slots=True)
class Guest:
    """One kernel and what boots with it.

    ``bzimage`` is Debian's file. ``vmlinux`` is the ELF file in it, which has a
    PVH note; ``vmlinux64`` is the same without the note, so that it is entered
    in 64-bit mode. ``initrd`` has the kernel's virtio modules and the init that
    obeys ``vmmd.test=`` (guest-init.sh).
    """

    bzimage: Path
    vmlinux: Path
    vmlinux64: Path
    initrd: Path


@dataclass(frozen=True, slots=True)
class Images:
    """All guest images: two kernels, and a root file system that fits both.

    ``cloud`` finds devices through ACPI alone and has no MPTable; ``full`` is
    Debian's kernel for PCs, with MPTable and VMGenID. ``rootfs`` is ext4, with
    the same init as the initramfs; copy it before a guest writes to it. ``debian``
    has an ssh server and network tools.
    """

    cloud: Guest
    full: Guest
    rootfs: Path
    debian: Debian


def images() -> Images:
    """The images, made if they are not there.

    Within the lab, which has no network, those that stood when it was started.
    Raises LabError if they cannot be made.
    """
    given = os.environ.get(_ENVIRONMENT)
    return _listed(Path(given) if given else _made())


def environment() -> dict[str, str]:
    """What tells a process in the lab where the images are; makes them."""
    return {_ENVIRONMENT: str(_made()), _DEBIAN: str(debian.made(BUSYBOX))}


def _listed(folder: Path) -> Images:
    cloud, full = (
        Guest(*(folder / flavour / name for name in Guest.__slots__))
        for flavour in kernels.META
    )
    debian_folder = Path(os.environ.get(_DEBIAN) or debian.made(BUSYBOX))
    return Images(cloud, full, folder / "rootfs.ext4", debian.listed(debian_folder))


def _made() -> Path:
    if not BUSYBOX.exists():
        raise LabError(
            f"{BUSYBOX} is missing: as root, apt-get install {kernels.all_packages()}"
        )
    packages = kernels.packages()
    words = [f"{package.name} {package.version}" for package in packages.values()]
    recipe = cache.digest((*_RECIPE, str(BUSYBOX)), *words)
    unpacked = {name: kernels.kernel(package) for name, package in packages.items()}
    return cache.entry(f"guest-{recipe}", lambda work: _build(work, unpacked))


def _build(work: Path, unpacked: dict[str, kernels.Kernel]) -> None:
    for flavour, kernel in unpacked.items():
        say(f"making guest images of {kernel.release}")
        folder = work / flavour
        folder.mkdir()
        (folder / "bzimage").symlink_to(kernel.bzimage)
        (folder / "vmlinux").symlink_to(kernel.vmlinux)
        command = ["objcopy", "--remove-section", ".notes", str(kernel.vmlinux)]
        kernels.run([*command, str(folder / "vmlinux64")])
        (folder / "initrd").write_bytes(_initrd(kernel))
    _rootfs(work)


def _initrd(kernel: kernels.Kernel) -> bytes:
    init = (cache.HERE / "guest-init.sh").read_bytes()
    modules = kernel.module_order(GUEST_MODULES)
    order = "".join(f"{path.name}\n" for path in modules)
    return cpio.archive(
        [
            cpio.console(),
            cpio.program("bin/busybox", BUSYBOX.read_bytes()),
            cpio.program("init", init),
            cpio.program("modules/order", order.encode()),
            *(cpio.program(f"modules/{p.name}", p.read_bytes()) for p in modules),
        ]
    )


def _rootfs(work: Path) -> None:
    """An ext4 image of busybox, its applets as links, and the init."""
    say(f"making a root file system of {ROOTFS_MIB} MiB")
    tree = work / "tree"
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "run", "root"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (tree / "sbin/init").write_bytes((cache.HERE / "guest-init.sh").read_bytes())
    for name in ("bin/busybox", "sbin/init"):
        (tree / name).chmod(0o755)
    applets = kernels.run([str(BUSYBOX), "--list"]).decode().split()
    for applet in {*applets} - {"busybox", "init"}:
        (tree / "bin" / applet).symlink_to("busybox")
    command = [kernels.sbin("mke2fs"), "-q", "-t", "ext4", "-E", "root_owner=0:0"]
    command += ["-d", str(tree), str(work / "rootfs.ext4"), f"{ROOTFS_MIB}M"]
    kernels.run(command)
    kernels.run(["rm", "-r", str(tree)])


def _main() -> int:
    try:
        found = images()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    for flavour, guest in (("cloud", found.cloud), ("full", found.full)):
        for name in Guest.__slots__:
            print(f"{flavour}.{name}={getattr(guest, name)}")
    print(f"rootfs={found.rootfs}")
    print(f"debian.rootfs={found.debian.rootfs}")
    print(f"debian.key={found.debian.key}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
