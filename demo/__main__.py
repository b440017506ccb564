"""``make demo``: boot Debian's kernel over the API and show every step.

Chooses where: on this machine's own KVM if that can run a kernel, else in the
lab, an emulated KVM host. Exits with 0 only if everything held.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.scene import FILE, TEXT, play
from lab.cache import LabError
from lab.images import images
from vmmd.errors import HostError
from vmmd.loop.probe import NATIVE_NS, level0_ns_per_instruction

LAB_TIMEOUT_S = 240
INSIDE = "--inside"


def main(arguments: list[str]) -> int:
    """Run the demo; ``--inside DIR`` is its part that needs KVM."""
    if arguments[:1] == [INSIDE]:
        return play(Path(arguments[1]))
    began = time.monotonic()
    native = _choose()
    print("Making the guest images (kept in the cache for the next time) ...")
    try:
        made = images()
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="vmmd-demo-") as name:
        folder = Path(name)
        shutil.copy(made.rootfs, folder / "root.ext4")
        status = play(folder) if native else _in_the_lab(folder)
        held = status == 0 and _check_disk(folder / "root.ext4")
    print(f"\nThe whole demo took {time.monotonic() - began:.0f} s.")
    print("Everything held." if held else "Something did not hold: see above.")
    return 0 if held else 1


def _choose() -> bool:
    """Whether this machine's own KVM can boot a kernel; says why."""
    try:
        cost_ns = level0_ns_per_instruction()
    except HostError as error:
        print(f"Where: in the lab, since this machine has no usable KVM ({error}).")
        return False
    if cost_ns is not None and cost_ns <= NATIVE_NS:
        print(f"Where: on this machine's KVM ({cost_ns:.1f} ns an instruction).")
        return True
    shown = "it does not answer" if cost_ns is None else f"{cost_ns:.0f} ns each"
    print(
        "Where: in the lab (an emulated KVM host), since this machine's KVM "
        f"emulates kernel instructions ({shown}; a kernel would not come up)."
    )
    return False


def _in_the_lab(folder: Path) -> int:
    print("Starting the lab: a Linux host in QEMU with KVM, about 4 s ...", flush=True)
    command = ["lab/run", "--images", "--share", str(folder)]
    command += ["--timeout", str(LAB_TIMEOUT_S), "--"]
    command += [sys.executable, "-u", "-m", "demo", INSIDE, str(folder)]
    return subprocess.run(command, check=False).returncode


def _check_disk(disk: Path) -> bool:
    """Whether the guest's file is in the image, and the file system clean."""
    print(f"\n$ debugfs -R 'cat {FILE}' root.ext4      # on the host, after power-off")
    command = ["debugfs", "-R", f"cat {FILE}", str(disk)]
    found = _run(command).stdout.decode(errors="replace").strip()
    print(found)
    checked = _run(["e2fsck", "-fn", str(disk)])
    print(f"$ e2fsck -fn root.ext4: exit status {checked.returncode}")
    return found == TEXT and checked.returncode == 0


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    return subprocess.run(command, capture_output=True, env=path, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
