"""Which kind of kernel a file is, and where it and its initrd go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot import bzimage, elf
from vmmd.boot.image import (
    BootError,
    FileSegment,
    Image,
    kernel_error,
    overlap,
    read,
)
from vmmd.boot.layout import HIMEM_START, MIB, PAGE_SIZE
from vmmd.rust import io_error, io_error_debug

if TYPE_CHECKING:
    from vmmd.boot.image import Regions, Source

_PEEK = 0x206  # bytes that tell the kind: as far as a bzImage's magic
_EHDR_SIZE = 64
_ARM64_MAGIC_AT = 0x38
_ARM64_MAGIC = b"ARM\x64"
_ARM64_ZBOOT = (4, b"zimg")
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "legacy lz4",
    b"BZh": "bzip2",
}


def load_kernel(source: Source, regions: Regions) -> Image:
    """Plan the kernel in ``source``: a vmlinux (ELF) or a bzImage.

    BootError says what is wrong with it, and in ``hint`` what would help.
    """
    head = read(source, 0, _PEEK)
    if len(head) < _EHDR_SIZE or head.startswith(elf.MAGIC):
        return elf.load(source, regions)
    if head[bzimage.MAGIC_AT :] == bzimage.MAGIC:
        return bzimage.load(source, regions)
    raise _no_kernel(head)


def place_initrd(size: int, image: Image, regions: Regions) -> FileSegment:
    """Where an initrd of ``size`` bytes goes: page-aligned, as high as may be.

    That is below the end of the first region and of what the kernel can take.
    BootError if it is empty or does not fit above the kernel.
    """
    low_end = regions[0][0] + regions[0][1]
    if size > low_end:
        error = _initrd_error("Failed to compute the initrd address.", size, low_end)
        error.debug = "Initrd(Address)"
        raise error
    if not size:
        error = BootError(
            "Error with initrd initialization: "
            "Cannot load initrd due to an invalid memory configuration..",
            "the initrd is empty: give a cpio archive, or no initrd_path",
        )
        error.debug = "Initrd(Load)"
        raise error
    gpa = (min(low_end, image.initrd_max + 1) - size) // PAGE_SIZE * PAGE_SIZE
    if gpa < HIMEM_START or overlap(gpa, size, image.claims):
        end = max(start + length for start, length in image.claims)
        what = f"the initrd of {size} bytes does not fit above the kernel"
        raise _initrd_error(what, size, end)
    return FileSegment(0, gpa, size)


def unreadable_initrd(fault: OSError) -> BootError:
    """An initrd that is there and cannot be read: a directory, a pipe."""
    error = BootError(
        "Error with initrd initialization: Cannot load initrd due to an invalid "
        f"image: {io_error(fault)}.",
        f"the initrd cannot be read ({fault.strerror}): give a cpio archive",
    )
    error.debug = f"Initrd(Read(IOError({io_error_debug(fault)})))"
    return error


def _no_kernel(head: bytes) -> BootError:
    at, zboot = _ARM64_ZBOOT
    if head[_ARM64_MAGIC_AT:].startswith(_ARM64_MAGIC) or head[at:].startswith(zboot):
        return kernel_error(
            "the kernel is an arm64 image, this machine is x86_64",
            "is built for arm64: give an x86_64 vmlinux or bzImage",
        )
    hint = "is neither an ELF vmlinux nor a bzImage: give an x86_64 kernel"
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            hint = f"is compressed with {name}: unpack it first, or give a bzImage"
    return kernel_error(
        "failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number",
        hint,
    )


def _initrd_error(what: str, size: int, behind: int) -> BootError:
    return BootError(
        f"Error with initrd initialization: {what}.",
        f"the initrd ({size} bytes) does not fit: raise mem_size_mib to"
        f" {(behind + size) // MIB + 1}, or use a smaller one",
    )
