"""The buses: which device answers a port or an address, and how an exit ends.

A *window* is a range that a device answers, with a page of registers that the
vCPU threads may serve without the loop. Per offset and size one of the
behaviours below; what no rule names is synchronous. (``vmmd/loop/vcpu.c`` is the
other side of this file.) POSTED can be had with or without a store before it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from vmmd._native import ffi, lib
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_SIZE = 4096


class Space(enum.IntEnum):
    """Which bus."""

    PIO = 0
    MMIO = 1


class Access(enum.IntEnum):
    """What a vCPU thread does with an access; SYNC asks the loop."""

    SYNC = 0
    SHADOW = 1  # read: answer from the page
    POSTED = 2  # write: append to the posted ring and go on
    STORED = 3  # write: store to the page and go on
    W1C = 4  # write: atomically clear these bits of the 32-bit word at `target`
    STORED_POSTED = 5  # write: store `value & mask` to the page, then as POSTED


@dataclass(frozen=True, slots=True)
class Rule:
    """Accesses of ``size`` bytes at ``offset`` .. ``offset + length - 1``.

    ``length`` spans a range with one rule (config space); an access must lie
    wholly in it. A rule for a read is SHADOW; for a write POSTED, STORED, W1C or
    STORED_POSTED: a register that the guest reads back at once and whose effect
    may come later. There the vCPU thread stores before it publishes (or, with the
    ring full, before it asks the loop), and the loop never stores that register
    in answer to the write: the guest may have written it again. ``mask`` is what
    STORED and STORED_POSTED keep of the value.
    """

    offset: int
    size: int
    write: bool
    access: Access
    length: int = 0
    target: int = 0
    mask: int = 0xFFFF_FFFF_FFFF_FFFF


class RegisterPage:
    """4 KiB shared with vCPU threads: written by the loop, read by them.

    Stores and loads are aligned and atomic; ``or_u32`` and W1C make the one
    read-modify-write. ``native`` is the ``uint8_t *`` for C.
    """

    def __init__(self) -> None:
        self._raw = ffi.new("uint8_t[]", 2 * PAGE_SIZE)
        base = int(ffi.cast("uintptr_t", self._raw))
        self.native = self._raw + (-base % PAGE_SIZE)

    def load(self, offset: int, size: int) -> int:
        """Atomic load of 1, 2, 4 or 8 bytes."""
        value: int = lib.page_load(self.native, offset, size)
        return value

    def store(self, offset: int, size: int, value: int) -> None:
        """Atomic store of 1, 2, 4 or 8 bytes."""
        lib.page_store(self.native, offset, size, value)

    def or_u32(self, offset: int, bits: int) -> None:
        """Atomic or into the 32-bit word at ``offset``."""
        lib.page_or_u32(self.native, offset, bits)

    def clear_u32(self, offset: int, bits: int) -> None:
        """Atomically clear ``bits`` of the 32-bit word at ``offset``."""
        lib.page_clear_u32(self.native, offset, bits)


class BusDevice(Protocol):
    """What the bus needs of a device. Offsets count from the window's base."""

    def read(self, offset: int, size: int) -> int:
        """Answer a synchronous read of ``size`` bytes."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write, synchronous or posted."""


class Window:
    """``length`` addresses at ``base``, answered by ``device``."""

    def __init__(
        self,
        space: Space,
        base: int,
        length: int,
        device: BusDevice,
        page: RegisterPage,
        rules: tuple[Rule, ...] = (),
    ) -> None:
        self.space = space
        self.base = base
        self.length = length
        self.device = device
        self.page = page
        self.rules = rules


class Bus:
    """All windows of a VM; finds the one that an access belongs to."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.unclaimed_reads = 0
        self.unclaimed_writes = 0

    def add(self, window: Window) -> None:
        """Add a window. ValueError if it overlaps one that is there."""
        for other in self._in(window.space):
            if (
                window.base < other.base + other.length
                and other.base < window.base + window.length
            ):
                raise ValueError(f"{window.base:#x} overlaps {other.base:#x}")
        self.windows.append(window)

    def find(self, space: Space, address: int) -> Window | None:
        """The window that holds ``address``."""
        for window in self._in(space):
            if 0 <= address - window.base < window.length:
                return window
        return None

    def read(self, space: Space, address: int, size: int) -> int:
        """A synchronous read; all ones where nobody answers."""
        window = self.find(space, address)
        if window is None or address - window.base + size > window.length:
            self.unclaimed_reads += 1
            return (1 << 8 * size) - 1
        mask = (1 << 8 * size) - 1
        return window.device.read(address - window.base, size) & mask

    def write(self, space: Space, address: int, size: int, value: int) -> None:
        """A synchronous write; counted where nobody answers."""
        window = self.find(space, address)
        if window is None or address - window.base + size > window.length:
            self.unclaimed_writes += 1
            return
        window.device.write(address - window.base, size, value)

    def _in(self, space: Space) -> Iterator[Window]:
        return (window for window in self.windows if window.space is space)
