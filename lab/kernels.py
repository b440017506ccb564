"""Debian's kernels: downloaded as packages, unpacked, nothing installed."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import cache
from lab.cache import LabError, say

META = {"cloud": "linux-image-cloud-amd64", "full": "linux-image-amd64"}
LISTS = Path("/var/lib/apt/lists")
# Of no use to a virtual machine; 200 MiB.
PRUNED = (
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/net/wireless",
    "drivers/net/ethernet",
    "drivers/staging",
    "drivers/iio",
)


@dataclass(frozen=True, slots=True)
class Package:
    """A kernel package: its name, version, and the kernel release in its name."""

    name: str
    version: str

    @property
    def release(self) -> str:
        """What ``uname -r`` says, and the name of its folder of modules."""
        return self.name.removeprefix("linux-image-")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel."""

    release: str
    folder: Path

    @property
    def bzimage(self) -> Path:
        """The package's own image."""
        return self.folder / "bzimage"

    @property
    def vmlinux(self) -> Path:
        """The image's payload: an ELF file with a PVH note."""
        return self.folder / "vmlinux"

    @property
    def modules(self) -> Path:
        """``/lib/modules/RELEASE`` of that kernel, indexed by depmod."""
        return self.folder / "lib/modules" / self.release

    def module_order(self, names: tuple[str, ...]) -> tuple[Path, ...]:
        """The modules of these names and those they need, in loading order.

        Names that the kernel has built in are left out. Raises LabError for one
        that it does not have at all.
        """
        needs = self._dependencies()
        builtin = (self.modules / "modules.builtin").read_text().splitlines()
        absent = {*names} - {*needs} - {_module_name(path) for path in builtin}
        if absent:
            raise LabError(f"kernel {self.release} has no module {sorted(absent)}")
        order: dict[Path, None] = {}
        for name in names:
            # modules.dep names a module, then what it needs, the innermost last.
            order |= dict.fromkeys(reversed(needs.get(name, [])))
        return tuple(order)

    def _dependencies(self) -> dict[str, list[Path]]:
        table: dict[str, list[Path]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            paths = [self.modules / word for word in line.replace(":", " ").split()]
            table[_module_name(line.split(":")[0])] = paths
        return table


def packages() -> dict[str, Package]:
    """The packages that Debian's meta packages depend on: ``cloud`` and ``full``.

    Asked of apt once per state of its lists. Raises LabError, which says what
    would help, if apt does not know them.
    """
    state = LISTS.stat().st_mtime_ns if LISTS.is_dir() else 0
    folder = cache.entry(f"packages-{state}", _ask_apt)
    lines = [line.split() for line in (folder / "packages").read_text().splitlines()]
    return {flavour: Package(name, version) for flavour, name, version in lines}


def kernel(wanted: Package) -> Kernel:
    """That kernel, from the cache or from Debian's archive.

    Raises LabError if it cannot be downloaded or unpacked.
    """
    recipe = cache.digest(("kernels.py",))
    folder = cache.entry(
        f"kernel-{wanted.release}-{wanted.version}-{recipe}",
        lambda work: _unpack(wanted, work),
    )
    return Kernel(wanted.release, folder)


def payload(bzimage: bytes) -> bytes:
    """The ELF file within a bzImage (boot protocol 2.08: payload_offset, _length).

    Debian compresses it by legacy lz4 (cloud kernels) or xz (the others). The
    four bytes after the stream are its size unpacked.
    """
    setup_sectors = bzimage[0x1F1]
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    packed = bzimage[start : start + length - 4]
    if packed.startswith(b"\x02\x21\x4c\x18"):
        return run(["lz4", "-d", "-c"], packed)
    if packed.startswith(b"\xfd7zXZ\0"):
        return lzma.decompress(packed)
    raise LabError(f"kernel payload starts with {packed[:6]!r}: neither lz4 nor xz")


def run(command: list[str], data: bytes = b"", cwd: Path | None = None) -> bytes:
    """Output of a tool. Raises LabError with its stderr, or if it is missing."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, cwd=cwd)
    except FileNotFoundError:
        raise LabError(
            f"{command[0]} is missing: as root, apt-get install {all_packages()}"
        ) from None
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()
        raise LabError(f"{' '.join(command)} failed ({done.returncode}): {text}")
    return done.stdout


def all_packages() -> str:
    """The Debian packages that the lab needs, in one line."""
    lines = (cache.HERE / "packages.txt").read_text().splitlines()
    return " ".join(line.split()[0] for line in lines if line.strip())


def _ask_apt(work: Path) -> None:
    """One line per flavour: its name, package and version."""
    found = _dependencies_of_meta()
    if len(found) < len(META) and os.geteuid() == 0:
        _update_lists()
        found = _dependencies_of_meta()
    if len(found) < len(META):
        raise LabError(
            f"apt does not know {' and '.join(META.values())}: as root, run "
            "apt-get update (the lab needs Debian's package lists)"
        )
    lines = [f"{flavour} {' '.join(found[meta])}" for flavour, meta in META.items()]
    (work / "packages").write_text("\n".join(lines))


def _dependencies_of_meta() -> dict[str, tuple[str, str]]:
    text = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *META.values()],
        capture_output=True,
        text=True,
    ).stdout
    fields = r"^Package: (\S+)\n(?:.+\n)*?Depends: (linux-image-\S+) \(= (\S+)\)"
    return {
        meta: (name, number)
        for meta, name, number in re.findall(fields, text, re.MULTILINE)
    }


def _update_lists() -> None:
    say("apt-get update")
    run(["apt-get", "update", "-qq"])


def _unpack(wanted: Package, work: Path) -> None:
    say(f"downloading {wanted.name} {wanted.version}")
    archive = _download(wanted, work)
    say(f"unpacking {archive.name}")
    run(["dpkg", "-x", str(archive), str(work / "all")])
    archive.unlink()
    modules = f"lib/modules/{wanted.release}"
    (work / "lib/modules").mkdir(parents=True)
    (work / "all" / modules).rename(work / modules)
    (work / "all/boot" / f"vmlinuz-{wanted.release}").rename(work / "bzimage")
    (work / "all/boot" / f"config-{wanted.release}").rename(work / "config")
    shutil.rmtree(work / "all")
    for name in PRUNED:
        shutil.rmtree(work / modules / "kernel" / name, ignore_errors=True)
    run([sbin("depmod"), "-b", str(work), wanted.release])
    (work / "vmlinux").write_bytes(payload((work / "bzimage").read_bytes()))


def _download(wanted: Package, work: Path) -> Path:
    command = ["apt-get", "download", f"{wanted.name}={wanted.version}"]
    if os.geteuid() == 0:
        # apt's own user may not write into the cache of root.
        command[1:1] = ["-o", "APT::Sandbox::User=root"]
    try:
        run(command, cwd=work)
    except LabError:
        if os.geteuid() != 0:
            raise
        _update_lists()
        run(command, cwd=work)
    return next(work.glob("*.deb"))


def _module_name(path: str) -> str:
    """``kvm_amd`` for ``kernel/arch/x86/kvm/kvm-amd.ko``."""
    return Path(path).name.split(".")[0].replace("-", "_")


def sbin(name: str) -> str:
    """The path of an administrator's tool, which a user's PATH may not hold."""
    return (
        shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or name
    )
