"""Checks of balloon, pmem and memory hotplug."""

from __future__ import annotations

import pytest

from vmmd.config import BalloonConfig, MemoryHotplugConfig, PmemConfig
from vmmd.resources.devices import check_balloon, check_memory_hotplug, insert_pmem
from vmmd.resources.fault import ResourceFault


def pmem(name: str, root: bool = False, path: str = "f") -> PmemConfig:
    """A pmem device as a request gives it."""
    return PmemConfig(name, path, root)


def test_the_balloon_fits_the_memory() -> None:
    config = BalloonConfig(128, True)
    assert check_balloon(config, 128) is config
    with pytest.raises(ResourceFault) as caught:
        check_balloon(config, 127)
    assert str(caught.value) == (
        "Balloon config error: Amount of pages requested is too large."
    )


def test_pmem_devices_keep_their_places() -> None:
    devices = insert_pmem((pmem("a"), pmem("b")), pmem("c"), False)
    devices = insert_pmem(devices, pmem("b", path="g"), False)
    assert [(one.id, one.path_on_host) for one in devices] == [
        ("a", "f"),
        ("b", "g"),
        ("c", "f"),
    ]


def test_one_root_only() -> None:
    root = (pmem("r", root=True), pmem("a"))
    second = "Pmem config error: A root pmem device already exist"
    for name in ("x", "a"):
        with pytest.raises(ResourceFault) as caught:
            insert_pmem(root, pmem(name, root=True), False)
        assert str(caught.value) == second
    assert insert_pmem(root, pmem("r", root=True), False) == root
    with pytest.raises(ResourceFault) as caught:
        insert_pmem((), pmem("a", root=True), True)
    assert str(caught.value) == (
        "Pmem config error: Attempt to add pmem as a root device while the root device"
        " defined as a block device"
    )
    assert insert_pmem((), pmem("a"), True) == (pmem("a"),)


@pytest.mark.parametrize(
    "sizes", [(128, 2, 128), (512, 128, 256), (1 << 40, 2, 128), (384, 128, 384)]
)
def test_hotplug_sizes_that_fit(sizes: tuple[int, int, int]) -> None:
    config = MemoryHotplugConfig(*sizes)
    assert check_memory_hotplug(config) is config


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((128, 0, 128), "Block size must not be lower than 2 MiB"),
        ((128, 1, 128), "Block size must not be lower than 2 MiB"),
        ((128, 6, 128), "Block size must be a power of 2"),
        ((128, 2, 127), "Slot size must not be lower than 128 MiB"),
        ((512, 4, 130), "Slot size must be a multiple of block size (4 MiB)"),
        ((127, 2, 128), "Total size must not be lower than slot size (128 MiB)"),
        ((129, 2, 128), "Total size must be a multiple of slot size (128 MiB)"),
    ],
)
def test_hotplug_sizes_that_do_not(sizes: tuple[int, int, int], text: str) -> None:
    with pytest.raises(ResourceFault) as caught:
        check_memory_hotplug(MemoryHotplugConfig(*sizes))
    assert str(caught.value) == f"Memory hotplug config error: {text}"
    assert caught.value.file_text == str(caught.value)
