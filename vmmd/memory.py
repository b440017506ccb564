"""Guest memory: the only way from a guest-physical address to bytes.

Regions are buffers that somebody else owns: a bytearray in tests, a mapping
made by ``vmmd.loop.files`` in a running VM. Every range is checked; what lies
outside, or across two regions, is a :class:`GuestError`. Every write marks the
host-writes bitmap, which a Diff snapshot adds to KVM's own dirty log.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.errors import GuestError
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Region:
    """``buffer`` (writable, any object with the buffer protocol) at ``gpa``."""

    gpa: int
    buffer: bytearray | memoryview


class GuestMemory:
    """The guest's memory as checked slices. Raises GuestError outside it.

    ``native`` is the ``struct guest_memory *`` that the C data paths take; it
    lives as long as this object.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        ordered = sorted(regions, key=lambda region: region.gpa)
        if not 0 < len(ordered) <= lib.GM_MAX_REGIONS:
            raise ValueError(f"1 to {lib.GM_MAX_REGIONS} regions, got {len(ordered)}")
        self.native = ffi.new("struct guest_memory *")
        self.regions: tuple[Region, ...] = tuple(ordered)
        self._views = [memoryview(r.buffer).cast("B") for r in ordered]
        self._dirty = [
            ffi.new("uint64_t[]", (len(view) // PAGE_SIZE + 64) // 64)
            for view in self._views
        ]
        self._handles = [
            ffi.from_buffer("uint8_t[]", v, require_writable=True) for v in self._views
        ]
        self.native.count = len(ordered)
        for i, region in enumerate(ordered):
            entry = self.native.region[i]
            entry.gpa, entry.size = region.gpa, len(self._views[i])
            entry.host, entry.dirty = self._handles[i], self._dirty[i]

    @property
    def size(self) -> int:
        """Bytes of all regions together."""
        return sum(len(view) for view in self._views)

    def slice(self, gpa: int, length: int) -> memoryview:
        """Read-only view of ``length`` bytes at ``gpa``; the guest may change them.

        For host code that needs the value twice: take ``read`` instead.
        """
        return self._slice(gpa, length).toreadonly()

    def read(self, gpa: int, length: int) -> bytes:
        """A copy of ``length`` bytes at ``gpa``."""
        return bytes(self._slice(gpa, length))

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at ``gpa`` and mark its pages as written by the host."""
        self._slice(gpa, len(data))[:] = data
        lib.gm_mark(self.native, gpa, len(data))

    def writable(self, gpa: int, length: int) -> memoryview:
        """Writable view, marked as written: for ``preadv`` straight into memory."""
        view = self._slice(gpa, length)
        lib.gm_mark(self.native, gpa, length)
        return view

    def load_u16(self, gpa: int) -> int:
        """Little-endian 16-bit load at ``gpa``."""
        value: int = struct.unpack("<H", self._slice(gpa, 2))[0]
        return value

    def load_u32(self, gpa: int) -> int:
        """Little-endian 32-bit load at ``gpa``."""
        value: int = struct.unpack("<I", self._slice(gpa, 4))[0]
        return value

    def load_u64(self, gpa: int) -> int:
        """Little-endian 64-bit load at ``gpa``."""
        value: int = struct.unpack("<Q", self._slice(gpa, 8))[0]
        return value

    def store_u16(self, gpa: int, value: int) -> None:
        """Little-endian 16-bit store at ``gpa``."""
        self.write(gpa, struct.pack("<H", value))

    def store_u32(self, gpa: int, value: int) -> None:
        """Little-endian 32-bit store at ``gpa``."""
        self.write(gpa, struct.pack("<I", value))

    def release(self) -> None:
        """Forget the buffers, which somebody else frees: every range is an error."""
        self.native.count = 0
        self.regions, self._views, self._handles = (), [], []

    def dirty_bitmaps(self) -> list[bytes]:
        """The host-writes bitmap per region, a bit per 4 KiB page, LSB first."""
        return [bytes(ffi.buffer(bitmap)) for bitmap in self._dirty]

    def clear_dirty(self) -> None:
        """Forget all host writes; call only when they are safe elsewhere."""
        for bitmap in self._dirty:
            ffi.memmove(bitmap, b"\0" * ffi.sizeof(bitmap), ffi.sizeof(bitmap))

    def _slice(self, gpa: int, length: int) -> memoryview:
        for region, view in zip(self.regions, self._views, strict=True):
            offset = gpa - region.gpa
            if 0 <= offset < len(view):
                if 0 <= length <= len(view) - offset:
                    return view[offset : offset + length]
                break
        raise GuestError(f"[{gpa:#x}, +{length:#x}) is not guest memory")
