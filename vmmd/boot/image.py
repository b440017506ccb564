"""What a kernel file becomes: named segments, an entry, and errors with a way out.

Nothing here reads more of a kernel than its headers. The bulk is named by
:class:`FileSegment` and read straight into guest memory by who owns the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from vmmd.errors import ConfigError
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

Regions = tuple[tuple[int, int], ...]
"""``(gpa, size in bytes)``, ascending, as ``layout.memory_regions`` gives them."""


class Source(Protocol):
    """A file opened for reading."""

    @property
    def size(self) -> int:
        """Bytes in the file."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer at the end of the file."""


class BootError(ConfigError):
    """A kernel or initrd that cannot be booted.

    ``str(error)`` is what InstanceStart answers after ``Start microvm error: ``,
    in Firecracker's words where it has any. ``hint`` says the same to a person,
    with the way out: for the log and for ``vmmd run``.
    """

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class FileSegment:
    """``size`` bytes of a file from ``file_offset``, wanted at ``gpa``."""

    file_offset: int
    gpa: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """How the boot processor starts: at ``rip``, told where its parameters are.

    ``linux64``: 64-bit, RSI = ``params`` (the zero page). ``pvh``: 32-bit
    protected mode without paging, RBX = ``params`` (hvm_start_info).
    """

    protocol: Literal["linux64", "pvh"]
    rip: int
    params: int


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel as it will lie in memory.

    ``claims`` are the ``(gpa, size)`` it uses before it has read its memory
    map, so where no initrd may lie. ``initrd_max`` is the last byte an initrd
    may occupy. ``setup_header`` is a bzImage's own, from offset 0x1F1 on.
    """

    segments: tuple[FileSegment, ...]
    entry: Entry
    claims: Regions
    initrd_max: int
    setup_header: bytes = b""


# Faults of an ELF file by their texts; the variants are linux-loader's.
_ELF = "failed to load ELF kernel image: Kernel Loader: "
_VARIANTS = {
    "Trying to load big-endian binary on little-endian machine": "BigEndianElfOnLittle",
    "Invalid Elf magic number": "InvalidElfMagicNumber",
    "Invalid program header size": "InvalidProgramHeaderSize",
    "Invalid program header offset": "InvalidProgramHeaderOffset",
    "Invalid Program Header Address": "InvalidProgramHeaderAddress",
    "Invalid entry address": "InvalidEntryAddress",
    "Unable to read elf header": "ReadElfHeader",
    "Unable to read kernel image": "ReadKernelImage",
    "Unable to read program header": "ReadProgramHeader",
    "Unable to read note header": "ReadNoteHeader",
    "Invalid PVH note header": "InvalidPvhNote",
    "Unable to seek to kernel start": "SeekKernelStart",
    "Unable to seek to program header": "SeekProgramHeader",
    "Unable to seek to note header": "SeekNoteHeader",
}


def kernel_error(detail: str, hint: str) -> BootError:
    """A kernel that cannot be loaded; ``detail`` as linux-loader words it.

    ``debug`` is set where Firecracker has a variant for the fault.
    """
    error = BootError(
        "System configuration error: Cannot load kernel due to invalid memory "
        f"configuration or invalid kernel image: Kernel Loader: {detail}",
        f"the kernel {hint}",
    )
    if variant := _VARIANTS.get(detail.removeprefix(_ELF)):
        error.debug = f"ConfigureSystem(KernelLoader(Elf({variant})))"
    return error


def unreadable_kernel(reason: str) -> BootError:
    """A kernel that turned out unreadable while it was loaded."""
    return kernel_error(
        f"{_ELF}Unable to read kernel image", f"cannot be read: {reason}"
    )


def too_large(needed: int, regions: Regions) -> BootError:
    """A kernel that needs memory up to ``needed``, which is not there."""
    need = (
        f"memory up to {-(-needed >> 20)} MiB, mem_size_mib is"
        f" {sum(size for _, size in regions) >> 20}"
    )
    return kernel_error(
        f"memory to load kernel image is not enough: it needs {need}",
        f"needs {need}: raise mem_size_mib",
    )


def in_memory(gpa: int, size: int, regions: Regions) -> bool:
    """Whether ``[gpa, gpa + size)`` lies in one region."""
    return any(
        start <= gpa and gpa + size <= start + length for start, length in regions
    )


def overlap(gpa: int, size: int, others: Iterable[tuple[int, int]]) -> bool:
    """Whether ``[gpa, gpa + size)`` shares a byte with any of ``others``."""
    return any(
        gpa < start + length and start < gpa + size
        for start, length in others
        if length
    )


def read(source: Source, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes at ``offset``; fewer where the file cannot give them.

    A directory or a pipe reads as an empty file, and is then refused as one.
    """
    try:
        return source.pread(length, offset)
    except (OSError, OverflowError):
        return b""
