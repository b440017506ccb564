"""Snapshots for older releases, as Firecracker's test of 1.5 asked for them.

The guests are Debian's; the monitors live in a jail, in whose root folder the
guest's files and the snapshot's are.
"""

from __future__ import annotations

import dataclasses
import filecmp
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import COMMAND
from tests.helpers.debian_guest import (
    DebianGuest,
    Shape,
    add_taps,
    copy_of,
    namespace,
    process,
    start,
)
from tests.helpers.snapshots import Snapshot, create_body, load
from vmmd.state.versions import CURRENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.images import Images

IN_JAIL = Snapshot(Path("/vm.vmstate"), Path("/vm.mem"))
OTHER = Snapshot(Path("/other.vmstate"), Path("/other.mem"))
ANOTHER = Snapshot(Path("/another.vmstate"), Path("/another.mem"))
EVENT_IDX = 29
MEM_MIB = 128
TOO_MANY = (
    "Too many devices attached: 12. The maximum number allowed for the snapshot data"
    " version requested is 11."
)
NOT_A_VERSION = (
    "An error occurred when deserializing the json body of a request: unexpected"
    " character 'i' while parsing major version number at line 1 column 106."
)
UNKNOWN = "Cannot translate microVM version to snapshot data version"
SUPPRESSION = (
    "The virtio devices use a features that is incompatible with older versions of"
    " Firecracker: notification suppression"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Jailed:
    """A guest in its jail."""

    jail: Path
    guest: DebianGuest

    def pause(self) -> None:
        """Pause it, or leave it paused."""
        self.guest.api.ok("PATCH", "/vm", {"state": "Paused"})

    def create(
        self, version: str, kind: str = "Full", to: Snapshot = IN_JAIL
    ) -> str | None:
        """Save it for a release; why not, if it is refused."""
        body = create_body(to, kind, version)
        status, answer = self.guest.api.call("PUT", "/snapshot/create", body)
        if status == 204:
            return None
        assert status == 400
        assert isinstance(answer, dict)
        assert [*answer] == ["fault_message"]
        assert state(self.guest) == "Paused"
        return str(answer["fault_message"])

    def outside(self, path: Path) -> Path:
        """A path of the jail, as the host sees it."""
        return self.jail / path.relative_to("/")

    def no_files(self) -> None:
        """Nothing was written."""
        assert not self.outside(IN_JAIL.state).exists()
        assert not self.outside(IN_JAIL.memory).exists()


@contextmanager
def jailed(images: Images, jail: Path, root: Path, shape: Shape) -> Iterator[Jailed]:
    """A guest that has started in a new jail, on a copy of ``root``."""
    copy_of(root, jail)
    kernel = images.cloud
    for name, path in (("kernel", kernel.bzimage), ("initrd", kernel.initrd)):
        shutil.copy(path, jail / name)
    inside = dataclasses.replace(
        kernel, bzimage=Path("/kernel"), initrd=Path("/initrd")
    )
    shape = dataclasses.replace(shape, kernel=inside)
    with namespace("version") as where:
        add_taps(where, shape.interfaces)
        with process(images, jail, where, jail) as guest:
            start(guest.api, Path("/root.ext4"), shape)
            yield Jailed(jail, guest)


def state(guest: DebianGuest) -> object:
    info = guest.api.ok("GET", "/")
    assert isinstance(info, dict)
    return info["state"]


def config(guest: DebianGuest) -> object:
    """All that GET /vm/config says, but for what 1.1.0 did not save."""
    shown = guest.api.ok("GET", "/vm/config")
    assert isinstance(shown, dict)
    return {key: shown[key] for key in shown if key != "boot-source"}


def described(path: Path) -> str:
    """What --describe-snapshot says of a state file."""
    done = subprocess.run(
        [*COMMAND, "--describe-snapshot", str(path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[0]  # then the log says good-bye


@pytest.mark.timeout(180)
def test_create_with_too_many_devices(guest_images: Images, tmp_path: Path) -> None:
    """The root disk and eleven interfaces: one more than 0.23.0 had lines for."""
    shape = Shape(guest_images.cloud, 11, 1, MEM_MIB, True, "sleep")
    with jailed(guest_images, tmp_path, guest_images.rootfs, shape) as vm:
        vm.guest.monitor.expect("VMMD-GUEST-SLEEPS")
        vm.pause()
        assert vm.create("0.23.0", "Diff") == TOO_MANY
        vm.no_files()
        # The drivers have acknowledged what is refused next: the count comes first.
        assert vm.create("0.24.0", "Diff") == SUPPRESSION
        vm.guest.api.ok("PATCH", "/vm", {"state": "Resumed"})


@pytest.fixture(scope="module")
def nano(
    guest_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Jailed]:
    """A guest with one interface, whose ssh server runs; for the tests below."""
    jail = tmp_path_factory.mktemp("jail")
    shape = Shape(guest_images.cloud, 1, 1, MEM_MIB, True, "ssh,echo")
    with jailed(guest_images, jail, guest_images.debian.rootfs, shape) as vm:
        vm.guest.monitor.expect("VMMD-GUEST-SSH")
        yield vm


@pytest.mark.timeout(180)
def test_the_guest_s_drivers_suppress_notifications(nano: Jailed) -> None:
    features = nano.guest.ssh("cat /sys/bus/virtio/devices/*/features").split()
    assert [bits[EVENT_IDX] for bits in features] == ["1", "1"]


def test_create_invalid_version(nano: Jailed) -> None:
    nano.pause()
    assert nano.create("invalid") == NOT_A_VERSION
    nano.pause()
    assert nano.create("0.22.0") == UNKNOWN
    nano.no_files()


def test_the_first_diff_holds_what_a_full_does(nano: Jailed) -> None:
    nano.pause()
    assert nano.create(CURRENT, "Diff", OTHER) is None
    assert nano.create(CURRENT, "Full", ANOTHER) is None
    first, second = nano.outside(OTHER.memory), nano.outside(ANOTHER.memory)
    assert filecmp.cmp(first, second, shallow=False)
    first.unlink()
    second.unlink()


def test_create_with_newer_virtio_features(nano: Jailed) -> None:
    nano.pause()
    for version in ("0.23.0", "0.24.0", "0.25.0", "1.0.0"):
        assert nano.create(version) == SUPPRESSION
    nano.no_files()
    assert nano.create("1.1.0") is None
    assert described(nano.outside(IN_JAIL.state)) == "v1.1.0"


@pytest.mark.timeout(180)
def test_the_snapshot_for_an_older_release_goes_on(
    nano: Jailed, guest_images: Images
) -> None:
    """What the translation took away is not missed."""
    kept = config(nano.guest)
    nano.guest.monitor.child.kill()
    nano.guest.monitor.child.wait()
    (nano.jail / "second").mkdir()
    where = nano.guest.where
    made = process(guest_images, nano.jail / "second", where, nano.jail)
    with made as guest:
        load(guest.api, IN_JAIL)
        assert guest.ssh("cat /proc/1/comm; echo alive") == "init\nalive\n"
        assert config(guest) == kept
        vm = Jailed(nano.jail, guest)
        vm.pause()
        for version in ("1.5.0", CURRENT):
            assert vm.create(version) is None
            assert described(nano.outside(IN_JAIL.state)) == f"v{version}"
