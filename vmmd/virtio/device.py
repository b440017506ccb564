"""What every virtio device is to its transport, and the transport to the device.

A device is a synchronous state machine over rings. It never waits and owns no
fd: its pump in ``vmmd/loop`` calls its pull verbs. One constructor path: a cold
boot builds a default record and restores it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vmmd._native import ffi, lib
from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.bus import RegisterPage
    from vmmd.memory import GuestMemory
    from vmmd.virtio.ring import Ring

RING_EVENT_IDX = 1 << 29
VERSION_1 = 1 << 32
IN_ORDER = 1 << 35


class Status(enum.IntFlag):
    """The device status register (virtio 1.2, 2.1)."""

    INIT = 0
    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Interrupt(enum.IntFlag):
    """The interrupt status register: why the device interrupts."""

    USED_RING = 1
    CONFIG = 2


class IrqLine:
    """A device's interrupt: the status word in its page, then the irqfd.

    ``native`` is the ``struct irq_line *`` for C (``irq_raise``). Until the loop
    sets ``fd`` the status alone is kept.
    """

    def __init__(self, page: RegisterPage) -> None:
        self._page = page
        self.native = ffi.new("struct irq_line *", {"page": page.native, "fd": -1})

    @property
    def fd(self) -> int:
        """The irqfd, owned by the loop; -1: none."""
        fd: int = self.native.fd
        return fd

    @fd.setter
    def fd(self, fd: int) -> None:
        self.native.fd = fd

    @property
    def raised(self) -> int:
        """How often it was signalled."""
        count: int = self.native.raised
        return count

    @property
    def status(self) -> Interrupt:
        """What the driver has not acknowledged yet."""
        return Interrupt(self._page.load(lib.IRQ_STATUS, 4))

    def raise_(self, why: Interrupt) -> None:
        """Set ``why`` in the status, then signal."""
        lib.irq_raise(self.native, int(why))

    def resignal(self) -> None:
        """Signal once more if the status is not zero: after a restore."""
        if self.status:
            lib.irq_raise(self.native, 0)


@dataclass(frozen=True, slots=True)
class Activation:
    """What a device gets when its driver is ready.

    ``rings``: one per queue, in order; those the driver left off stay empty.
    ``features``: what the driver took of what was offered. The ``native`` of
    rings, memory and irq stay at their addresses as long as the transport lives.
    """

    memory: GuestMemory
    rings: tuple[Ring, ...]
    features: int
    irq: IrqLine


class VirtioDevice(Protocol):
    """The device contract. ``DEVICE_ID`` and ``QUEUE_SIZES`` never change."""

    @property
    def DEVICE_ID(self) -> int:
        """The type, from the specification's section 5."""

    @property
    def QUEUE_SIZES(self) -> tuple[int, ...]:
        """The largest size of each queue."""

    @property
    def features(self) -> int:
        """The feature bits offered, VERSION_1 included."""

    def config_space(self) -> bytes:
        """The configuration as the driver sees it now; a fixed length."""

    def activate(self, activation: Activation) -> None:
        """The driver is ready, or was when the snapshot was made: keep the
        device's own state and start to serve. GuestError: cannot."""

    def reset(self) -> None:
        """Back to what it was before ``activate``. Answers to requests that are
        still in a worker are dropped by the rings."""

    def save(self) -> object:
        """The device's record; nothing may be in flight but what it says."""

    def statistics(self) -> object:
        """The device's counters, a frozen dataclass."""


@runtime_checkable
class WritableConfig(Protocol):
    """A device whose configuration the driver may write, in part."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Take ``data``, which lies inside the configuration; ignore what is
        read-only. The transport shows ``config_space()`` afterwards."""
