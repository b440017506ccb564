"""Drives: order, the one root, defaults, files, patches."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.opener import Host
from vmmd.config import (
    DriveConfig,
    DriveUpdate,
    IoEngine,
    RateLimiterConfig,
    TokenBucketConfig,
)
from vmmd.resources.drives import Drive, insert_drive, open_drive, patch_drive
from vmmd.resources.fault import ResourceFault

CREATE = "Drive config error: Unable to create the virtio block device: "
BACKING = f"{CREATE}Virtio backend error: Error manipulating the backing file: "
INVALID = f"{CREATE}Invalid block config."
PATCH = "Drive config error: Unable to patch the block device: "
BUCKET = TokenBucketConfig(10, None, 5)


def drive(name: str, root: bool = False, path: str | None = "disk.img") -> DriveConfig:
    """A drive as a request gives it."""
    return DriveConfig(name, None, root, path_on_host=path)


def placed(*configs: DriveConfig) -> tuple[Drive, ...]:
    """The drives after these PUTs."""
    drives: tuple[Drive, ...] = ()
    for config in configs:
        drives = insert_drive(drives, config, False, Host().open)
    return drives


def names(drives: tuple[Drive, ...]) -> list[str]:
    """Their ids in order."""
    return [one.config.drive_id for one in drives]


def test_the_root_is_first() -> None:
    assert names(placed(drive("a"), drive("b"), drive("r", root=True))) == [
        "r",
        "a",
        "b",
    ]


def test_the_same_id_replaces_in_its_place() -> None:
    again = replace(drive("b"), partuuid="x")
    drives = placed(drive("a"), drive("b"), drive("c"), again)
    assert names(drives) == ["a", "b", "c"]
    assert drives[1].config.partuuid == "x"


def test_a_drive_that_becomes_the_root_swaps_with_the_first() -> None:
    drives = placed(drive("a"), drive("b"), drive("c"), drive("c", root=True))
    assert names(drives) == ["c", "b", "a"]


def test_a_second_root_is_refused() -> None:
    drives = placed(drive("r", root=True), drive("a"))
    for name in ("x", "a"):
        with pytest.raises(ResourceFault) as caught:
            insert_drive(drives, drive(name, root=True), False, Host().open)
        assert str(caught.value) == (
            "Drive config error: A root block device already exists!"
        )
    assert names(insert_drive(drives, drive("r", root=True), False, Host().open)) == [
        "r",
        "a",
    ]
    other = insert_drive(drives, drive("r"), False, Host().open)
    assert names(insert_drive(other, drive("a", root=True), False, Host().open)) == [
        "a",
        "r",
    ]


def test_a_root_beside_a_root_pmem_is_refused() -> None:
    with pytest.raises(ResourceFault) as caught:
        insert_drive((), drive("r", root=True), True, Host().open)
    assert str(caught.value) == (
        "Drive config error: Attempt to add block as a root device while the root"
        " device defined as a pmem device"
    )
    assert names(insert_drive((), drive("a"), True, Host().open)) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_never_two_roots_nor_one_behind(steps: list[tuple[str, bool]]) -> None:
    drives: tuple[Drive, ...] = ()
    for name, root in steps:
        try:
            drives = insert_drive(drives, drive(name, root), False, Host().open)
        except ResourceFault:
            continue
        assert len(set(names(drives))) == len(drives)
        assert not any(one.config.is_root_device for one in drives[1:])


def test_defaults_are_filled_in() -> None:
    full = open_drive(drive("a"), Host().open).config
    assert full.is_read_only is False
    assert full.io_engine is IoEngine.SYNC
    assert full.rate_limiter is None


@pytest.mark.parametrize("read_only", [None, False, True])
def test_the_file_is_opened_as_the_drive_is_used(read_only: bool | None) -> None:
    host = Host()
    open_drive(replace(drive("a"), is_read_only=read_only), host.open)
    assert host.opened[0].writable is not bool(read_only)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            drive("a", path="gone"),
            f"{BACKING}No such file or directory (os error 2) gone",
        ),
        (drive("a", path=""), f"{BACKING}No such file or directory (os error 2) "),
        (drive("a", path="dir"), f"{BACKING}Is a directory (os error 21) dir"),
        (drive("a", path=None), INVALID),
        (replace(drive("a"), socket="s"), INVALID),
        (replace(drive("a", path=None), socket="s", is_read_only=False), INVALID),
        (replace(drive("a", path=None), socket="s", io_engine=IoEngine.SYNC), INVALID),
        (
            replace(drive("a", path=None), socket="s"),
            f"{CREATE}vhost-user block devices are not built yet in this vmmd.",
        ),
    ],
)
def test_refusals(config: DriveConfig, text: str) -> None:
    with pytest.raises(ResourceFault) as caught:
        open_drive(config, Host(faults={"dir": errno.EISDIR}).open)
    assert str(caught.value) == text


def test_what_standard_error_has() -> None:
    with pytest.raises(ResourceFault) as caught:
        open_drive(drive("a", path='g"'), Host().open)
    assert caught.value.file_text == (
        "Block device error: Unable to create the virtio block device: Virtio backend"
        " error: Error manipulating the backing file: No such file or directory (os"
        ' error 2) g"'
    )
    assert caught.value.debug == (
        "BlockDevice(CreateBlockDevice(VirtioBackend(BackingFile(Os { code: 2, kind:"
        ' NotFound, message: "No such file or directory" }, "g\\""))))'
    )


def test_a_patch_opens_the_new_file_as_the_old() -> None:
    host = Host()
    config = replace(drive("a"), is_read_only=True)
    drives = (open_drive(config, host.open), open_drive(drive("b"), host.open))
    after = patch_drive(drives, DriveUpdate("a", "two.img"), host.open)
    assert after[0].config.path_on_host == "two.img"
    assert after[1] is drives[1]
    assert host.opened[-1].path == "two.img"
    assert not host.opened[-1].writable


def test_a_patch_of_the_limiter_keeps_the_file() -> None:
    drives = placed(drive("a"))
    update = DriveUpdate("a", rate_limiter=RateLimiterConfig(None, BUCKET))
    after = patch_drive(drives, update, Host().open)
    assert after[0].file is drives[0].file
    assert after[0].config.rate_limiter == RateLimiterConfig(None, BUCKET)
    zero = RateLimiterConfig(None, TokenBucketConfig(0, None, 0))
    last = patch_drive(after, DriveUpdate("a", rate_limiter=zero), Host().open)
    assert last[0].config.rate_limiter is None


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (DriveUpdate("a"), "Block: Running method expected different backend."),
        (
            DriveUpdate("no", "two.img"),
            "Failed perform action on device: Device not found",
        ),
        (DriveUpdate("no"), "Failed perform action on device: Device not found"),
        (
            DriveUpdate("a", "gone"),
            "Block: Virtio backend error: Error manipulating the backing file: No such"
            " file or directory (os error 2) gone",
        ),
    ],
)
def test_refused_patches(update: DriveUpdate, text: str) -> None:
    with pytest.raises(ResourceFault) as caught:
        patch_drive(placed(drive("a")), update, Host().open)
    assert str(caught.value) == f"{PATCH}{text} Please verify the request arguments."
