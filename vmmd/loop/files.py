"""Files and mappings that outlive a call: guest memory, kernels, sources.

The pure side names what it wants (a segment of a file, a range of memory);
this side owns the descriptors and moves the bytes.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from vmmd.errors import HostError
from vmmd.memory import GuestMemory, Region

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Segment(Protocol):
        """``size`` bytes of a file from ``file_offset``, wanted at ``gpa``."""

        @property
        def file_offset(self) -> int: ...
        @property
        def gpa(self) -> int: ...
        @property
        def size(self) -> int: ...


_MAP_NORESERVE = 0x4000  # <asm-generic/mman-common.h>; not in every mmap module
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE


def map_guest_memory(regions: Iterable[tuple[int, int]]) -> GuestMemory:
    """Anonymous, unreserved memory for ``(gpa, size)`` regions.

    Pages are given by the kernel as the guest touches them, so a guest larger
    than what is free now can start. HostError names errno and what to do.
    """
    mapped = []
    for gpa, size in regions:
        try:
            mapping = mmap.mmap(-1, size, flags=_ANONYMOUS)
        except (OSError, OverflowError, ValueError) as error:
            raise HostError(
                f"guest memory of {size >> 20} MiB cannot be mapped ({error}): "
                "give the machine less memory (mem_size_mib) or raise the "
                "limits (ulimit -v, vm.overcommit_memory)"
            ) from error
        mapped.append(Region(gpa, memoryview(mapping)))
    return GuestMemory(mapped)


class HostFile:
    """A file of the host, open; a kernel's Source. Owns its descriptor."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def open(cls, path: str, writable: bool = False) -> HostFile:
        """Open ``path``; OSError as the kernel gives it.

        Non-blocking for the open alone: a FIFO without a writer would hang it.
        """
        access = os.O_RDWR if writable else os.O_RDONLY
        fd = os.open(path, access | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        return cls(path, fd)

    @property
    def size(self) -> int:
        """Bytes in the file or block device now."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer at the end of the file."""
        return os.pread(self.fd, length, offset)

    def duplicate(self) -> HostFile:
        """The same open file under another descriptor, with its own life."""
        return HostFile(self.path, os.dup(self.fd))

    def close(self) -> None:
        """Close the file; again is harmless."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def load_segments(
    memory: GuestMemory, source: HostFile, segments: Iterable[Segment]
) -> None:
    """Read each segment straight into guest memory.

    HostError if the file has become shorter than the plan that was made of it.
    """
    for segment in segments:
        view = memory.writable(segment.gpa, segment.size)
        done = 0
        while done < segment.size:
            count = os.preadv(source.fd, [view[done:]], segment.file_offset + done)
            if not count:
                raise HostError(
                    f"{source.path}: ends at byte {segment.file_offset + done}, "
                    f"{segment.size - done} bytes early; was it replaced?"
                )
            done += count
