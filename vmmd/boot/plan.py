"""A boot as one value: what is read from files, what is written, where it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot import acpi, e820, mptable, params, pvh, tables
from vmmd.boot.layout import CMDLINE, ZERO_PAGE
from vmmd.boot.load import load_kernel, place_initrd
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.boot.image import Entry, FileSegment, Image, Regions, Source
    from vmmd.boot.layout import MmioSlot


@dataclass(frozen=True, slots=True)
class BootPlan:
    """All that a machine needs before its first instruction.

    ``segments`` come from the kernel file, ``initrd`` from the initrd's;
    ``writes`` are ``(gpa, bytes)``. No two of these share a byte.
    """

    segments: tuple[FileSegment, ...]
    initrd: FileSegment | None
    writes: tuple[tuple[int, bytes], ...]
    entry: Entry


@dataclass(frozen=True, slots=True)
class Board:
    """What a guest is told it has. ``regions`` as ``layout.memory_regions``."""

    vcpu_count: int
    regions: Regions
    slots: tuple[MmioSlot, ...] = ()


def plan(
    board: Board, kernel: Source, initrd_size: int | None, cmdline: bytes
) -> BootPlan:
    """Plan a boot. ``cmdline`` ends in its NUL (``cmdline.Cmdline.encode``).

    BootError if the kernel or the initrd cannot be booted on this board.
    """
    image = load_kernel(kernel, board.regions)
    initrd = None
    if initrd_size is not None:
        initrd = place_initrd(initrd_size, image, board.regions)
    writes = (
        *tables.boot_tables(image.entry.protocol),
        (CMDLINE, cmdline),
        *mptable.mptable(board.vcpu_count),
        *acpi.tables(board.vcpu_count, board.slots),
        *_parameters(image, board.regions, initrd, len(cmdline)),
    )
    return BootPlan(image.segments, initrd, writes, image.entry)


def _parameters(
    image: Image, regions: Regions, initrd: FileSegment | None, cmdline_size: int
) -> tuple[tuple[int, bytes], ...]:
    memory_map = e820.memory_map(regions)
    if image.entry.protocol == "pvh":
        return pvh.start_info(memory_map, initrd)
    page = params.zero_page(image.setup_header, memory_map, cmdline_size, initrd)
    return ((ZERO_PAGE, page),)
