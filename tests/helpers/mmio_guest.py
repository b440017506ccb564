"""A guest's view of a virtio-mmio device: registers, and Linux's way up.

Accesses are served as a vCPU thread would: by the window's rules where one
fits, else by the transport, which is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.helpers.driver import Driver, RingLayout
from vmmd.bus import Access, Rule
from vmmd.virtio import registers as reg
from vmmd.virtio.device import RING_EVENT_IDX, Status

if TYPE_CHECKING:
    from vmmd.virtio.mmio import MmioTransport


class Guest:
    """Registers of one device. ``synchronous`` counts what asked the loop."""

    def __init__(self, transport: MmioTransport) -> None:
        self.transport = transport
        self.synchronous_reads = 0
        self.synchronous_writes = 0
        self.drivers: list[Driver] = []

    def read(self, offset: int, size: int = 4) -> int:
        """Read a register."""
        if (rule := self._rule(offset, size, write=False)) is not None:
            assert rule.access is Access.SHADOW
            return self.transport.page.load(offset, size)
        self.synchronous_reads += 1
        return self.transport.read(offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a register."""
        if (rule := self._rule(offset, size, write=True)) is not None:
            assert rule.access is Access.W1C
            self.transport.page.clear_u32(rule.target, value)
            return
        self.synchronous_writes += 1
        self.transport.write(offset, size, value)

    def add_status(self, bit: Status) -> None:
        """Set one status bit, keeping the others."""
        self.write(reg.STATUS, self.read(reg.STATUS) | bit)

    def offered(self) -> int:
        """The features that the device offers."""
        features = 0
        for sel in (1, 0):
            self.write(reg.DEVICE_FEATURES_SEL, sel)
            features |= self.read(reg.DEVICE_FEATURES) << 32 * sel
        return features

    def take_features(self, features: int) -> None:
        """Acknowledge ``features``."""
        for sel in (1, 0):
            self.write(reg.DRIVER_FEATURES_SEL, sel)
            self.write(reg.DRIVER_FEATURES, features >> 32 * sel & reg.U32)

    def set_up_queue(self, index: int, layout: RingLayout) -> None:
        """As Linux's vm_setup_vq does."""
        self.write(reg.QUEUE_SEL, index)
        assert self.read(reg.QUEUE_READY) == 0
        assert self.read(reg.QUEUE_NUM_MAX) >= layout.size
        self.write(reg.QUEUE_NUM, layout.size)
        for offset, address in (
            (reg.QUEUE_DESC, layout.desc),
            (reg.QUEUE_AVAIL, layout.avail),
            (reg.QUEUE_USED, layout.used),
        ):
            self.write(offset, address & reg.U32)
            self.write(offset + 4, address >> 32)
        self.write(reg.QUEUE_READY, 1)

    def probe(
        self, layouts: list[RingLayout], wanted: int | None = None
    ) -> list[Driver]:
        """Everything from reset to DRIVER_OK, as Linux does it; the drivers.

        ``wanted``: features to take; None takes all that are offered.
        """
        self.write(reg.STATUS, 0)
        self.add_status(Status.ACKNOWLEDGE)
        self.add_status(Status.DRIVER)
        offered = self.offered()
        taken = offered if wanted is None else wanted
        self.take_features(taken)
        self.add_status(Status.FEATURES_OK)
        event_idx = bool(taken & RING_EVENT_IDX)
        for index, layout in enumerate(layouts):
            layout.clear(self.transport.memory)
            self.set_up_queue(index, layout)
        self.add_status(Status.DRIVER_OK)
        memory = self.transport.memory
        self.drivers = [Driver(memory, layout, event_idx) for layout in layouts]
        return self.drivers

    def acknowledge(self) -> int:
        """An interrupt handler: read the status, acknowledge it; what it was."""
        status = self.read(reg.INTERRUPT_STATUS)
        self.write(reg.INTERRUPT_ACK, status)
        return status

    def _rule(self, offset: int, size: int, *, write: bool) -> Rule | None:
        for rule in self.transport.window.rules:
            end = rule.offset + (rule.length or rule.size)
            if (
                (rule.size, rule.write) == (size, write)
                and rule.offset <= offset <= end - size
                and offset % size == 0
            ):
                return rule
        return None
