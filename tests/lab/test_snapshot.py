"""A Debian guest under load goes on in process after process, and as two clones.

One guest for all tests, in the order that they stand in: each goes on with what
the one before has left. The kernel is Debian's for PCs, which knows VMGenID; its
command line says nothing of clocks or timers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from lab.kernels import sbin
from tests.helpers.debian_guest import (
    DebianGuest,
    Namespace,
    Shape,
    add_taps,
    copy_of,
    namespace,
    process,
    start,
    tap,
)
from tests.helpers.debian_load import CPUS, STEP_S, Load
from tests.helpers.snapshots import Snapshot, load, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.images import Images

SLOW_S = 8.0  # what an emulated processor may add to a step
CLOSE_S = 3.0  # and to a look at the clock
GAP_S = 30.0
TROUBLE = "unstable|stall|soft lockup|hung task|Oops|BUG:|EXT4-fs error|I/O error"
RESEEDED = "crng reseeded due to virtual machine fork"
LOOK = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource; dmesg"
LIMITER = {"bandwidth": {"size": 1 << 30, "refill_time": 100}}


@dataclass(slots=True)
class Place:
    """Where the guest lives: its folder, its network, the process it is in now."""

    images: Images
    folder: Path
    where: Namespace
    stack: ExitStack
    guest: DebianGuest
    load: Load
    boot_said: str = ""
    restores: int = 0

    def next_process(self) -> DebianGuest:
        """End the process, start another one."""
        self.guest.monitor.child.kill()
        self.guest.monitor.child.wait()
        self.restores += 1
        self.guest = self.another(f"p{self.restores}", self.where)
        return self.guest

    def another(self, name: str, where: Namespace) -> DebianGuest:
        """One more process."""
        (self.folder / name).mkdir()
        made = process(self.images, self.folder / name, where)
        return self.stack.enter_context(made)

    def files(self, name: str) -> Snapshot:
        """The paths of a snapshot."""
        return Snapshot(self.folder / f"{name}.state", self.folder / f"{name}.mem")


@pytest.fixture(scope="module")
def place(
    guest_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("snapshot")
    with ExitStack() as stack:
        where = stack.enter_context(namespace("snap"))
        add_taps(where, 1)
        (folder / "p0").mkdir()
        guest = stack.enter_context(process(guest_images, folder / "p0", where))
        disk = copy_of(guest_images.debian.rootfs, folder)
        shape = Shape(guest_images.full, 1, CPUS, 144, True, "ssh,echo")
        start(guest.api, disk, shape)
        guest.monitor.expect("VMMD-GUEST-SSH")
        made = Load(folder, guest)
        stack.callback(made.stop)
        made.start()
        said = made.ssh(LOOK)
        yield Place(guest_images, folder, where, stack, guest, made, said)


def clock_step_s(place: Place, before: int) -> float:
    """The longest step of the guest's clock since the counter's ``before``."""
    ticks = place.load.ticks()[before:]
    return max(
        after.monotonic_s - first.monotonic_s for first, after in pairwise(ticks)
    )


def assert_sound(place: Place) -> None:
    """The counter has left nothing out, no clock has gone back, no one complains."""
    ticks = place.load.ticks()
    assert [tick.number for tick in ticks] == list(range(len(ticks)))
    assert ticks[-1].back == 0
    for first, after in pairwise(ticks):
        assert after.monotonic_s - first.monotonic_s >= STEP_S
        assert after.wall_s > first.wall_s
    said = place.load.ssh(LOOK)
    assert said.startswith(place.boot_said)  # the same clock source, too
    said = said.removeprefix(place.boot_said)
    assert not re.findall(f".*(?:{TROUBLE}).*", said)
    assert said.count(RESEEDED) == place.restores


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "gap_s", "catches_up"),
    [
        ("Full", 0.0, False),
        ("Diff", GAP_S, False),
        ("Full", 1.0, False),
        ("Diff", 0.0, False),
        ("Full", GAP_S / 6, True),
    ],
)
def test_a_guest_under_load_goes_on_in_another_process(
    place: Place, kind: str, gap_s: float, catches_up: bool
) -> None:
    """Five in a row; a Diff goes into the files that the guest was loaded from."""
    files, seen = place.files("same"), len(place.load.ticks())
    lag_s = place.load.lag_s()
    body = {"iface_id": "eth0", "rx_rate_limiter": LIMITER}
    place.guest.api.ok("PATCH", "/network-interfaces/eth0", body)
    config = place.guest.api.ok("GET", "/vm/config")
    begun_s = time.monotonic()
    save(place.guest.api, files, kind)
    saved_s = time.monotonic()
    guest = place.next_process()
    time.sleep(gap_s)  # the guest is nowhere
    load(guest.api, files, clock_realtime=catches_up)
    loaded_s = time.monotonic()
    place.load.goes_on()
    step_s = clock_step_s(place, seen - 1)
    gained_s = place.load.lag_s() - lag_s
    print(f"{kind}: save {saved_s - begun_s:.1f} s, away {loaded_s - saved_s:.1f} s")
    print(f"the clock's longest step {step_s:.1f} s, it lost {gained_s:.1f} s")
    if catches_up:
        assert loaded_s - saved_s <= step_s < loaded_s - begun_s + SLOW_S
        assert abs(gained_s) < CLOSE_S
    else:
        assert step_s < SLOW_S
        assert gained_s > loaded_s - saved_s - CLOSE_S
    assert guest.api.ok("GET", "/vm/config") == config
    guest.monitor.send("to the console\n")
    guest.monitor.expect("you said: to the console")
    assert_sound(place)


@pytest.mark.timeout(240)
def test_a_chain_of_diffs_merged_onto_its_base(place: Place) -> None:
    chain = [place.files(name) for name in ("base", "first", "second")]
    for files, kind in zip(chain, ("Full", "Diff", "Diff"), strict=True):
        save(place.guest.api, files, kind)
        if files is not chain[-1]:
            place.guest.api.ok("PATCH", "/vm", {"state": "Resumed"})
            place.load.goes_on()
    guest = place.next_process()
    pairs = [f"{files.state}:{files.memory}" for files in chain]
    merge = [sys.executable, "-m", "vmmd", "snapshot", "rebase", *pairs]
    subprocess.run(merge, check=True)
    load(guest.api, chain[0])
    place.load.goes_on()
    assert_sound(place)


@pytest.mark.timeout(300)
def test_two_clones_on_disks_and_taps_of_their_own(place: Place) -> None:
    """One where it was, but its tap and disk were renamed; one somewhere else."""
    files, disk = place.files("clones"), place.folder / "root.ext4"
    disks = [place.folder / "renamed.ext4", place.folder / "copied.ext4"]
    save(place.guest.api, files)
    shutil.copy(disk, disks[1])
    first = place.next_process()
    disk.rename(disks[0])
    place.where.ip(f"link set {tap(0)} down\nlink set {tap(0)} name renamed0 up")
    there = place.stack.enter_context(namespace("clone"))
    add_taps(there, 1)
    there.ip(f"link set {tap(0)} down\nlink set {tap(0)} name cloned0 up")
    second = place.another("clone", there)
    ends = zip((first, second), disks, ("renamed0", "cloned0"), strict=True)
    for guest, own_disk, own_tap in ends:
        load(
            guest.api,
            files,
            drive_overrides=[{"drive_id": "root", "path_on_host": str(own_disk)}],
            network_overrides=[{"iface_id": "eth0", "host_dev_name": own_tap}],
        )
    place.load.goes_on()
    assert_sound(place)
    said = second.ssh(LOOK).removeprefix(place.boot_said)
    assert said.count(RESEEDED) == place.restores
    ours, theirs = (
        guest.ssh("cat /proc/sys/kernel/random/uuid") for guest in (first, second)
    )
    assert ours != theirs
    for guest, own_disk in zip((first, second), disks, strict=True):
        end(guest)
        checked = subprocess.run([sbin("e2fsck"), "-fn", own_disk], capture_output=True)
        assert checked.returncode == 0, checked.stdout


def end(guest: DebianGuest) -> None:
    """Stop the writer; what it wrote must be there. Power the guest off."""
    check = """
        touch /tmp/stop
        until [ -e /tmp/stopped ]; do sleep 0.1; done
        echo 3 >/proc/sys/vm/drop_caches
        cat /data/sum.* | sha256sum --check --quiet && ls /data/sum.* | wc -l
    """
    assert int(guest.ssh(check)) > 5
    off = "sleep 1; sync; mount -o remount,ro / && busybox poweroff -f"
    guest.ssh(f"({off}) >/dev/null 2>&1 </dev/null &")
    assert guest.monitor.finish() == 0
