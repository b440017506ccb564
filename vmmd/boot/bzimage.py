"""bzImage: Linux's own compressed kernel, entered at its 64-bit entry point.

Documentation/arch/x86/boot.rst. The protected-mode part is loaded where the
header says (``code32_start``, 1 MiB) and entered 0x200 bytes on; it moves
itself to where it will run and unpacks there, and needs ``init_size`` bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

from vmmd.boot.image import (
    BootError,
    Entry,
    FileSegment,
    Image,
    in_memory,
    kernel_error,
    read,
    too_large,
)
from vmmd.boot.layout import HIMEM_START, ZERO_PAGE
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.boot.image import Regions, Source

HEADER_AT = 0x1F1
MAGIC_AT = 0x202
MAGIC = b"HdrS"

_HEADER_MAX = 0x290  # where the zero page has its next field
_HEADER_MIN = 0x268  # as far as protocol 2.12 goes
_JUMP = 0x201  # the header ends this byte's value after 0x202
_SECTOR = 512
_ENTRY_64 = 0x200
_LOADED_HIGH = 1
_XLF_KERNEL_64 = 1
_VERSION_64 = 0x020C


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """The fields that loading goes by, under their names in boot.rst."""

    LAYOUT: ClassVar = {  # offset in the file, format
        "setup_sects": (0x1F1, "<B"),
        "syssize": (0x1F4, "<I"),
        "version": (0x206, "<H"),
        "loadflags": (0x211, "<B"),
        "code32_start": (0x214, "<I"),
        "initrd_addr_max": (0x22C, "<I"),
        "kernel_alignment": (0x230, "<I"),
        "relocatable_kernel": (0x234, "<B"),
        "xloadflags": (0x236, "<H"),
        "pref_address": (0x258, "<Q"),
        "init_size": (0x260, "<I"),
    }

    setup_sects: int
    syssize: int
    version: int
    loadflags: int
    code32_start: int
    initrd_addr_max: int
    kernel_alignment: int
    relocatable_kernel: int
    xloadflags: int
    pref_address: int
    init_size: int

    @property
    def setup_size(self) -> int:
        """Bytes of the file before the protected-mode part."""
        return ((self.setup_sects or 4) + 1) * _SECTOR

    @property
    def runtime_start(self) -> int:
        """Where the kernel unpacks itself to."""
        if not self.relocatable_kernel:
            return self.pref_address
        align = self.kernel_alignment
        return max(-(-self.code32_start // align) * align, self.pref_address)


def load(source: Source, regions: Regions) -> Image:
    """Plan a bzImage. BootError names what is wrong with it."""
    raw = read(source, 0, _HEADER_MAX)
    if len(raw) < _HEADER_MAX:
        raise _error("Unable to read bzImage header", "is cut short: copy it again")
    header = _parse(raw)
    _check(header)
    size = source.size - header.setup_size
    # More than syssize is fine (a signature follows), less is not.
    if size < max(header.syssize * 16, _ENTRY_64 + 1):
        raise _error(
            "Unable to read bzImage compressed kernel",
            f"is cut short at {source.size} bytes: copy it again",
        )
    claims = (
        (header.code32_start, size),
        (header.runtime_start, header.init_size),
    )
    for gpa, length in claims:
        if not in_memory(gpa, length, regions[:1]):
            raise too_large(gpa + length, regions)
    return Image(
        (FileSegment(header.setup_size, header.code32_start, size),),
        Entry("linux64", header.code32_start + _ENTRY_64, ZERO_PAGE),
        claims,
        header.initrd_addr_max,
        raw[HEADER_AT : max(MAGIC_AT + raw[_JUMP], _HEADER_MIN)],
    )


def _parse(raw: bytes) -> SetupHeader:
    layout = SetupHeader.LAYOUT.items()
    return SetupHeader(
        **{name: struct.unpack_from(form, raw, at)[0] for name, (at, form) in layout}
    )


def _check(header: SetupHeader) -> None:
    if header.version < 0x0200 or not header.loadflags & _LOADED_HIGH:
        raise _error("Invalid bzImage", "is a zImage of old: give a bzImage")
    if header.version < _VERSION_64 or not header.xloadflags & _XLF_KERNEL_64:
        raise BootError(
            "System configuration error: bzImage does not provide a 64-bit entry point",
            "the kernel is a 32-bit bzImage, or from before Linux 3.8: give one"
            " built for x86_64",
        )
    if header.code32_start < HIMEM_START:
        raise kernel_error(
            "invalid kernel start address",
            f"wants to be loaded at {header.code32_start:#x}, below 1 MiB: it is"
            " damaged or no bzImage",
        )
    if not header.kernel_alignment or not header.init_size:
        raise _error("Invalid bzImage", "has a damaged header: copy it again")


def _error(what: str, hint: str) -> BootError:
    return kernel_error(
        f"failed to load bzImage kernel image: Kernel Loader: {what}: it {hint}", hint
    )
