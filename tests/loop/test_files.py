"""Guest memory mappings, host files, and segments read into memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from vmmd._native import ffi
from vmmd.errors import GuestError, HostError
from vmmd.loop.files import (
    HostFile,
    load_segments,
    map_guest_memory,
    unmap_guest_memory,
)

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Segment:
    file_offset: int
    gpa: int
    size: int


def test_memory_is_mapped_zero_and_apart() -> None:
    memory = map_guest_memory([(0, 1 << 20), (1 << 32, 8192)])
    assert memory.size == (1 << 20) + 8192
    assert memory.read(1 << 32, 4) == b"\0" * 4
    memory.write(4096, b"low")
    assert memory.read(4096, 3) == b"low"


def test_regions_can_have_huge_pages_on_both_sides() -> None:
    memory = map_guest_memory([(0, 1 << 20), (1 << 32, 3 << 20)])
    for i in range(2):
        host = int(ffi.cast("uintptr_t", memory.native.region[i].host))
        assert host % (2 << 20) == 0
    unmap_guest_memory(memory)


def test_memory_given_back_is_memory_no_more() -> None:
    memory = map_guest_memory([(0, 1 << 20)])
    unmap_guest_memory(memory)
    with pytest.raises(GuestError):
        memory.read(0, 1)


def test_more_memory_than_there_is_can_be_mapped() -> None:
    assert map_guest_memory([(0, 1 << 40)]).size == 1 << 40


def test_impossible_memory_is_a_clear_error() -> None:
    with pytest.raises(HostError, match="mem_size_mib"):
        map_guest_memory([(0, 1 << 56)])


def test_segments_are_read_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"head" + b"body" * 1000)
    file = HostFile.open(str(path))
    memory = map_guest_memory([(0, 1 << 20)])
    load_segments(memory, file, [Segment(4, 0x1000, 4000), Segment(0, 0x8000, 4)])
    assert memory.read(0x1000, 4000) == b"body" * 1000
    assert memory.read(0x8000, 4) == b"head"
    assert file.size == 4004
    file.close()
    file.close()


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"x" * 100)
    memory = map_guest_memory([(0, 1 << 20)])
    with pytest.raises(HostError, match="ends at byte 100, 28 bytes early"):
        load_segments(memory, HostFile.open(str(path)), [Segment(0, 0, 128)])


def test_a_duplicate_has_its_own_life(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"disk")
    file = HostFile.open(str(path), writable=True)
    other = file.duplicate()
    file.close()
    assert other.pread(4, 0) == b"disk"
    other.close()


def test_what_cannot_be_opened_is_the_kernels_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HostFile.open(str(tmp_path / "missing"))
    with pytest.raises(IsADirectoryError):
        HostFile.open(str(tmp_path), writable=True)


def test_a_disk_must_have_a_size(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = os.listdir("/proc/self/fd")
    for writable in (False, True):
        with pytest.raises(OSError, match="Illegal seek"):
            HostFile.open_disk(str(pipe), writable)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (1024, []),
        (
            700,
            [
                "Disk size 700 is not a multiple of sector size 512; "
                "the remainder will not be visible to the guest."
            ],
        ),
    ],
)
def test_a_disk_tells_what_the_guest_will_not_see(
    tmp_path: Path, size: int, told: list[str]
) -> None:
    path, lines = tmp_path / "disk", list[str]()
    path.write_bytes(bytes(size))
    HostFile.open_disk(str(path), warn=lines.append).close()
    assert lines == told


def test_huge_pages_are_reserved_or_refused() -> None:
    with pytest.raises(HostError, match="sysctl vm"):
        map_guest_memory([(0, 1 << 43)], huge_pages=True)
