"""Files and mappings that outlive a call: guest memory, kernels, sources.

The pure side names what it wants (a segment of a file, a range of memory);
this side owns the descriptors and moves the bytes.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.errors import HostError
from vmmd.loop.ioctl import host_error
from vmmd.memory import GuestMemory, Region
from vmmd.rust import c_path, io_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Segment(Protocol):
        """``size`` bytes of a file from ``file_offset``, wanted at ``gpa``."""

        @property
        def file_offset(self) -> int: ...
        @property
        def gpa(self) -> int: ...
        @property
        def size(self) -> int: ...


_SECTOR_SIZE = 512
ALIGNMENT = 2 << 20
"""Of each region on the host: where guest-physical and host addresses agree in
their lower 21 bits, the kernel can map a huge page on both sides at once."""


def map_guest_memory(
    regions: Iterable[tuple[int, int]], *, huge_pages: bool = False
) -> GuestMemory:
    """Anonymous memory for ``(gpa, size)`` regions, zero.

    Pages are given by the kernel as the guest touches them, so a guest larger
    than what is free now can start; huge pages (2 MiB) are reserved at once.
    HostError names errno, which its cause has, and what to do.
    Give it back by :func:`unmap_guest_memory`.
    """
    mapped: list[Region] = []
    for gpa, size in regions:
        address = ffi.NULL if size >> 63 else _map(size, huge_pages=huge_pages)
        if address == ffi.NULL:
            number = errno.ENOMEM if size >> 63 else ffi.errno
            _unmap(mapped)
            raise _no_memory(size, number, huge_pages=huge_pages)
        mapped.append(Region(gpa, memoryview(ffi.buffer(address, size))))
    return GuestMemory(mapped)


def map_snapshot_memory(regions: Iterable[tuple[int, int]], fd: int) -> GuestMemory:
    """Memory for ``(gpa, size)`` regions that shows the pages of a memory file.

    The file has the regions end to end. The mapping is private: it reads the file
    lazily, and what is written stays here. ``fd`` may be closed, but a Full
    snapshot needs it. HostError as Firecracker words it, also for a file that is
    shorter (touching what is past its end would kill the process).
    """
    mapped, offset = sorted(regions), 0
    if os.fstat(fd).st_size < sum(size for _, size in mapped):
        raise HostError(
            "Total sum of memory regions exceeds largest possible file offset"
        )
    memory = map_guest_memory(mapped)
    for index, (_, size) in enumerate(mapped):
        host = memory.native.region[index].host
        if lib.files_map_file(host, size, fd, offset):
            number = ffi.errno
            unmap_guest_memory(memory)
            error = OSError(number, os.strerror(number))
            raise HostError(f"Cannot create mmap region: {io_error(error)}") from error
        offset += size
    return memory


def _map(size: int, *, huge_pages: bool) -> ffi.CData:
    if huge_pages:
        return lib.files_map_huge(size)
    return lib.files_map(size, ALIGNMENT)


def _no_memory(size: int, number: int, *, huge_pages: bool) -> HostError:
    cause = OSError(number, os.strerror(number))
    way_out = (
        "reserve huge pages (sysctl vm.nr_hugepages), or leave huge_pages out"
        if huge_pages
        else "give the machine less memory (mem_size_mib) or raise the limits "
        "(ulimit -v, vm.overcommit_memory)"
    )
    what = f"guest memory of {size >> 20} MiB"
    error = HostError(f"{what} cannot be mapped ({cause.strerror}): {way_out}")
    error.__cause__ = cause
    return error


def unmap_guest_memory(memory: GuestMemory) -> None:
    """Give guest memory back to the host; nothing may use it any more."""
    regions = memory.regions
    memory.release()
    _unmap(regions)


def _unmap(regions: Iterable[Region]) -> None:
    for region in regions:
        address = ffi.from_buffer(region.buffer)
        lib.files_unmap(address, len(region.buffer))


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
        fd = os.open(c_path(path), access | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        return cls(path, fd)

    @classmethod
    def open_disk(
        cls,
        path: str,
        writable: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> HostFile:
        """The same for what a drive stands on: OSError if it has no size.

        ``warn`` is told of a size that the guest will not see all of.
        """
        file = cls.open(path, writable)
        try:
            size = file.size
        except OSError:
            file.close()
            raise
        if warn is not None and size % _SECTOR_SIZE:
            warn(
                f"Disk size {size} is not a multiple of sector size {_SECTOR_SIZE}; "
                "the remainder will not be visible to the guest."
            )
        return file

    @property
    def size(self) -> int:
        """Bytes in the file or block device now."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer at the end of the file."""
        return os.pread(self.fd, length, offset)

    def duplicate(self) -> HostFile:
        """The same open file under another descriptor, with its own life. HostError."""
        try:
            return HostFile(self.path, os.dup(self.fd))
        except OSError as error:
            raise host_error("dup", error) from error

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


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of it: the kernel may take a part first. OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
