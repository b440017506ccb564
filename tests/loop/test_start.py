"""What InstanceStart says of a configuration that cannot be started.

Every fault here comes before KVM is asked for anything.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vmmd.boot.image import BootError
from vmmd.config import BootSourceConfig, DriveConfig, HugePages, MachineConfig
from vmmd.errors import ConfigError
from vmmd.loop.files import HostFile
from vmmd.loop.selftest import kernel_image
from vmmd.loop.start import build
from vmmd.resources.boot import BootSource
from vmmd.resources.drives import open_drive
from vmmd.resources.store import VmResources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Made = Callable[..., VmResources]

SMALL = MachineConfig(mem_size_mib=16)
ELF = (
    "System configuration error: Cannot load kernel due to invalid memory "
    "configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel "
    "image: Kernel Loader: "
)
INITRD = "Error with initrd initialization: "
LINE = "Inserting string would make command line too long."


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Resources of files made to order, closed at the end."""
    opened: list[VmResources] = []

    def make(
        kernel: bytes | None = None,
        initrd: str | None = None,
        boot_args: str | None = None,
        drives: int = 0,
        machine: MachineConfig = SMALL,
    ) -> VmResources:
        path = tmp_path / "kernel"
        path.write_bytes(kernel_image() if kernel is None else kernel)
        config = BootSourceConfig(str(path), initrd, boot_args)
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(512))
        resources = VmResources(
            machine,
            BootSource(
                config,
                HostFile.open(str(path)),
                None if initrd is None else HostFile.open(initrd),
            ),
            tuple(
                open_drive(
                    DriveConfig(f"d{i}", None, False, path_on_host=str(disk)),
                    HostFile.open_disk,
                )
                for i in range(drives)
            ),
        )
        opened.append(resources)
        return resources

    yield make
    for resources in opened:
        for file in resources.files():
            file.close()


def fault(resources: VmResources) -> tuple[str, str]:
    """The answer's text and what standard error shows of the same."""
    with pytest.raises(ConfigError) as caught:
        build(resources, print)
    return str(caught.value), caught.value.debug


def test_no_kernel_is_the_first_thing_missed() -> None:
    text, _ = fault(VmResources(MachineConfig(mem_size_mib=1 << 50)))
    assert text == "Cannot start microvm without kernel configuration."


def test_the_kernel_comes_before_the_initrd_and_the_command_line(
    made: Made, tmp_path: Path
) -> None:
    long = "x" * 2045
    text, debug = fault(made(b"x", str(tmp_path), long, drives=1))
    assert text == f"{ELF}Unable to read elf header"
    assert debug == "ConfigureSystem(KernelLoader(Elf(ReadElfHeader)))"
    text, _ = fault(made(None, str(tmp_path), long, drives=1))
    assert text.startswith(INITRD)
    text, debug = fault(made(None, None, long, drives=1))
    assert text == f"Invalid kernel command line: {LINE}"
    assert debug == f'KernelCmdline("{LINE}")'


def test_a_line_without_room_for_a_device(made: Made) -> None:
    text, debug = fault(made(None, None, "x" * 2030, drives=1))
    assert text == (
        "Could not attach device: MMIO transport error: "
        f"Failed to allocate requested resourc: {LINE}"
    )
    assert debug == "AttachDevice(MmioTransport(Cmdline(TooLarge)))"


def test_an_initrd_that_is_a_directory(made: Made, tmp_path: Path) -> None:
    text, debug = fault(made(None, str(tmp_path)))
    reason = "Is a directory (os error 21)"
    assert text == f"{INITRD}Cannot load initrd due to an invalid image: {reason}."
    os_error = 'Os { code: 21, kind: IsADirectory, message: "Is a directory" }'
    assert debug == f"Initrd(Read(IOError({os_error})))"


def test_an_initrd_that_is_a_pipe(made: Made, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text, _ = fault(made(None, str(pipe)))
    assert "invalid image: Invalid seek (os error 29)." in text


@pytest.mark.parametrize(
    ("size", "debug"), [(0, "Initrd(Load)"), (17 << 20, "Initrd(Address)")]
)
def test_an_initrd_of_the_wrong_size(
    made: Made, tmp_path: Path, size: int, debug: str
) -> None:
    initrd = tmp_path / "initrd"
    with initrd.open("wb") as file:
        file.truncate(size)
    text, shown = fault(made(None, str(initrd)))
    assert text.startswith(INITRD)
    assert shown == debug


def test_a_kernel_cut_short_after_the_plan(made: Made) -> None:
    text, _ = fault(made(kernel_image()[:-1]))
    assert text == f"{ELF}Unable to read kernel image"


def test_memory_that_cannot_be_mapped(made: Made) -> None:
    text, debug = fault(made(machine=MachineConfig(mem_size_mib=1 << 40)))
    assert text == (
        "Invalid Memory Configuration: Cannot create mmap region: "
        "Out of memory (os error 12)"
    )
    assert debug.startswith("GuestMemory(MmapRegionError(Mmap(Os { code: 12,")
    text, debug = fault(made(machine=MachineConfig(mem_size_mib=1 << 43)))
    assert text == (
        "Invalid Memory Configuration: Total sum of memory regions exceeds largest "
        "possible file offset"
    )
    assert debug == "GuestMemory(OffsetTooLarge)"


def test_memory_larger_than_a_slot_of_kvm(made: Made) -> None:
    text, debug = fault(made(machine=MachineConfig(mem_size_mib=16 << 20)))
    assert text == (
        "Error with the KvmVm object: Cannot set the memory regions: "
        "Invalid argument (os error 22)"
    )
    assert debug == "KvmVm(SetUserMemoryRegion(Error(22)))"


def test_huge_pages_that_the_host_does_not_have(made: Made) -> None:
    huge = MachineConfig(mem_size_mib=8 << 20, huge_pages=HugePages.HUGETLBFS_2M)
    with pytest.raises(BootError) as caught:
        build(made(machine=huge), print)
    assert str(caught.value) == f"{ELF}Unable to read kernel image"
    assert "vm.nr_hugepages" in caught.value.hint
    text, _ = fault(made(b"x", machine=huge))
    assert text == f"{ELF}Unable to read elf header"
