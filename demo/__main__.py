"""``make demo``: boot Debian's kernel over the API and show every step.

Chooses where: on this machine's own KVM if that can run a kernel, else in the
lab, an emulated KVM host. Exits with 0 only if everything held.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from demo.place import choose
from demo.process import show
from demo.scene import DISK, FILE, TEXT, play
from demo.screen import Times
from lab.cache import LabError
from lab.images import images

LAB_TIMEOUT_S = 240
INSIDE = "--inside"
_TOOLS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def main(arguments: list[str]) -> int:
    """Run the demo; ``--inside DIR`` is its part that needs KVM."""
    if arguments[:1] == [INSIDE]:
        return play(Path(arguments[1]))
    times = Times()
    with times.measure("the whole demo"):
        held = _demo(times)
    show(f"\n{times.table()}")
    show("Everything held." if held else "Something did not hold: see above.")
    return 0 if held else 1


def _demo(times: Times) -> bool:
    with times.measure("  asking this machine's KVM"):
        place = choose()
    show(str(place))
    show("Guest images: made the first time, then kept in the cache.")
    try:
        with times.measure("  guest images"):
            made = images()
    except LabError as error:
        show(f"demo: {error}")
        return False
    with tempfile.TemporaryDirectory(prefix="vmmd-demo-") as name:
        folder = Path(name)
        # Of its 512 MiB most are holes.
        copy = ["cp", "--sparse=always", str(made.debian.rootfs), str(folder / DISK)]
        subprocess.run(copy, check=True)
        with times.measure(
            "  the guest" if place.native else "  the lab and the guest"
        ):
            status = play(folder) if place.native else _in_the_lab(folder)
        return status == 0 and _check_disk(folder / DISK)


def _in_the_lab(folder: Path) -> int:
    show("The lab: starting a Linux host with KVM in QEMU, about 4 s ...")
    command = ["lab/run", "--images", "--share", str(folder)]
    command += ["--timeout", str(LAB_TIMEOUT_S), "--"]
    command += [sys.executable, "-u", "-m", "demo", INSIDE, str(folder)]
    return subprocess.run(command, check=False).returncode


def _check_disk(disk: Path) -> bool:
    """Whether the guest's file is in the image, and the file system clean."""
    show("\nOn the host, after the power-off:")
    status, found = _run("debugfs", "-R", f"cat {FILE}", disk.name, folder=disk.parent)
    clean, _ = _run("e2fsck", "-fn", disk.name, folder=disk.parent)
    return status == clean == 0 and found == TEXT


def _run(*command: str, folder: Path) -> tuple[int, str]:
    show(f"$ {subprocess.list2cmdline(command)}")
    done = subprocess.run(
        command, cwd=folder, env=_TOOLS, capture_output=True, check=False
    )
    text = done.stdout.decode(errors="replace").strip()
    show("\n".join(f"  {line}" for line in text.splitlines()))
    return done.returncode, text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
