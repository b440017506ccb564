"""virtio-mmio, version 2 (virtio 1.2, 4.2): a device's registers.

Reads are answered by vCPU threads from the register page, which every write
here leaves true; InterruptACK and QueueNotify do not come here either, but work
when they do. What else a driver writes is synchronous: 20 writes for the probe
of a device with one queue. A write that the specification does not allow at its
time changes nothing and is counted; none raises.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from vmmd.bus import PAGE_SIZE, RegisterPage, Space, Window
from vmmd.errors import GuestError, HostError, SnapshotError
from vmmd.frozen import dataclass
from vmmd.state.record import U32, record
from vmmd.virtio import registers as reg
from vmmd.virtio.config_space import ConfigSpace
from vmmd.virtio.device import (
    RING_EVENT_IDX,
    VERSION_1,
    Activation,
    Interrupt,
    IrqLine,
    Status,
)
from vmmd.virtio.queues import Queues
from vmmd.virtio.ring import RingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.memory import GuestMemory
    from vmmd.virtio.device import VirtioDevice
    from vmmd.virtio.ring import Ring


@dataclass(frozen=True, slots=True)
class MmioStatistics:
    """Counts since the start: what the driver did wrong, and what came of it."""

    illegal_reads: int
    illegal_writes: int
    resets: int
    needs_resets: int
    interrupts: int


class MmioTransport:
    """One virtio device behind a 4 KiB window of registers; a BusDevice.

    ``state`` is what a snapshot saved (None: a cold boot). Raises SnapshotError
    if it does not fit the device or the memory. The loop gives the window to the
    vCPU threads, sets ``irq.fd``, puts an ioeventfd per queue at ``base +
    QUEUE_NOTIFY`` (4 bytes, datamatch the queue's index), sets
    ``config.on_rules``, and looks at ``active`` after each write.
    """

    def __init__(
        self,
        device: VirtioDevice,
        memory: GuestMemory,
        base: int = 0,
        state: MmioState | None = None,
    ) -> None:
        self.device = device
        self.memory = memory
        self.page = RegisterPage()
        self.irq = IrqLine(self.page)
        self.window = Window(Space.MMIO, base, PAGE_SIZE, self, self.page, reg.RULES)
        self.config = ConfigSpace(device, self.window)
        self.fault = ""
        self._queues = Queues(memory, device.QUEUE_SIZES)
        self._counts: Counter[str] = Counter()
        self._kicks: set[int] = set()
        self._status = Status.INIT
        self._device_sel = self._driver_sel = self._driver_features = 0
        self._activated = False
        self._writers = self._write_table()
        self._take(state or MmioState(queues=self._queues.fresh(event_idx=False)))
        if state and state.activated:
            self._resume(state)

    # What the loop and the machine ask

    @property
    def status(self) -> Status:
        """The device status register."""
        return self._status

    @property
    def active(self) -> bool:
        """Whether the device serves its rings: DRIVER_OK, and nothing broke."""
        return self._activated and Status.NEEDS_RESET not in self._status

    @property
    def rings(self) -> tuple[Ring, ...]:
        """The rings, one per queue; they stay the same objects for good."""
        return self._queues.rings

    @property
    def driver_features(self) -> int:
        """What the driver took."""
        return self._driver_features

    def take_kicks(self) -> tuple[int, ...]:
        """Queues that were kicked by a synchronous write since the last call."""
        kicks = tuple(sorted(self._kicks))
        self._kicks.clear()
        return kicks

    def config_changed(self) -> None:
        """Show the device's configuration, which has changed, and interrupt."""
        self.config.change()
        if Status.DRIVER_OK in self._status:
            self.irq.raise_(Interrupt.CONFIG)

    def mark_broken(self, reason: str = "") -> None:
        """Set NEEDS_RESET and interrupt; ``fault`` says why. Once per life.

        Without a ``reason`` it is the broken ring's.
        """
        if Status.NEEDS_RESET in self._status:
            return
        faults = [ring.fault for ring in self.rings if ring.fault]
        self.fault = reason or (faults[0] if faults else "the device failed")
        self._counts["needs_resets"] += 1
        self._status |= Status.NEEDS_RESET
        self._show_registers()
        if Status.DRIVER_OK in self._status:
            self.irq.raise_(Interrupt.CONFIG)

    def statistics(self) -> MmioStatistics:
        """The counters."""
        counts = self._counts
        return MmioStatistics(
            illegal_reads=counts["illegal_reads"],
            illegal_writes=counts["illegal_writes"],
            resets=counts["resets"],
            needs_resets=counts["needs_resets"],
            interrupts=self.irq.raised,
        )

    def save(self) -> MmioState:
        """The registers and rings. Kicks not taken are lost: take them first."""
        return MmioState(
            status=int(self._status),
            device_features_sel=self._device_sel,
            driver_features_sel=self._driver_sel,
            driver_features=self._driver_features,
            queue_sel=self._queues.select,
            interrupt_status=int(self.irq.status),
            config_generation=self.config.generation,
            activated=self._activated,
            queues=self._queues.save(),
        )

    # The bus

    def read(self, offset: int, size: int) -> int:
        """A read that no rule answered. 0 where there is nothing to read."""
        if reg.CONFIG <= offset <= PAGE_SIZE - size and size in reg.CONFIG_SIZES:
            octets = bytes(self.page.load(offset + i, 1) for i in range(size))
            return int.from_bytes(octets, "little")
        if size == 4 and offset in reg.READABLE:
            return self.page.load(offset, 4)
        self._counts["illegal_reads"] += 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A write; never raises. Only 4 bytes count, but in the configuration."""
        if offset >= reg.CONFIG:
            legal = self._driven() and self.config.write(
                offset - reg.CONFIG, size, value
            )
        elif size == 4 and (writer := self._writers.get(offset)):
            legal = writer(value & reg.U32)
            self._show_registers()
        else:
            legal = False
        self._counts["illegal_writes"] += not legal

    def _write_table(self) -> dict[int, Callable[[int], bool]]:
        """Per register what takes a write, and says whether it was legal."""
        queues = self._queues
        table: dict[int, Callable[[int], bool]] = {
            reg.DEVICE_FEATURES_SEL: self._write_device_sel,
            reg.DRIVER_FEATURES_SEL: self._write_driver_sel,
            reg.DRIVER_FEATURES: self._write_driver_features,
            reg.QUEUE_SEL: queues.write_select,
            reg.QUEUE_NUM: self._configuring(queues.write_num),
            reg.QUEUE_READY: self._write_queue_ready,
            reg.QUEUE_NOTIFY: self._write_queue_notify,
            reg.INTERRUPT_ACK: self._write_interrupt_ack,
            reg.STATUS: self._write_status,
        }
        for low in (reg.QUEUE_DESC, reg.QUEUE_AVAIL, reg.QUEUE_USED):
            for at in (low, low + 4):
                table[at] = self._configuring(partial(queues.write_address, at))
        return table

    # Features and queues

    def _write_device_sel(self, value: int) -> bool:
        self._device_sel = value
        return True

    def _write_driver_sel(self, value: int) -> bool:
        self._driver_sel = value
        return True

    def _write_driver_features(self, value: int) -> bool:
        if self._status != reg.DRIVEN:
            return False
        if self._driver_sel > 1:
            return value == 0
        shift = 32 * self._driver_sel
        kept = self._driver_features & ~(reg.U32 << shift)
        self._driver_features = kept | value << shift
        return True

    def _offered(self) -> int:
        return self.device.features | VERSION_1

    def _features_agree(self) -> bool:
        taken = self._driver_features
        return bool(taken & VERSION_1) and not taken & ~self._offered()

    def _configuring(self, write: Callable[[int], bool]) -> Callable[[int], bool]:
        """Only while the driver may configure queues."""
        return lambda value: self._status == reg.AGREED and write(value)

    def _write_queue_ready(self, value: int) -> bool:
        # Linux takes queues back after a reset, when they are off already.
        if value == self._queues.ready:
            return True
        return self._status == reg.AGREED and self._queues.write_ready(value)

    def _write_queue_notify(self, value: int) -> bool:
        if not self.active or value >= len(self.rings):
            return False
        self._kicks.add(value)
        return True

    def _write_interrupt_ack(self, value: int) -> bool:
        self.page.clear_u32(reg.INTERRUPT_STATUS, value)
        return True

    # Status

    def _driven(self) -> bool:
        """There is a driver, and neither side has given up."""
        given_up = Status.FAILED | Status.NEEDS_RESET
        return Status.DRIVER in self._status and not self._status & given_up

    def _write_status(self, value: int) -> bool:
        if value == 0:
            self._reset()
        elif value & Status.FAILED:
            self._status |= Status.FAILED
        elif value != self._status:
            return reg.LADDER.get(self._status) == value and self._climb(Status(value))
        return True

    def _climb(self, status: Status) -> bool:
        if status == reg.AGREED and not self._features_agree():
            return False
        self._status = status
        if status == reg.RUNNING:
            self._start()
        return True

    def _start(self) -> None:
        event_idx = bool(self._driver_features & RING_EVENT_IDX)
        try:
            self._activate(self._queues.fresh(event_idx=event_idx))
        except (GuestError, HostError) as error:
            self._queues.stop()
            self.mark_broken(str(error))

    def _activate(self, states: tuple[RingState, ...]) -> None:
        self._queues.start(states)
        self.device.activate(
            Activation(self.memory, self.rings, self._driver_features, self.irq)
        )
        self._activated = True

    def _reset(self) -> None:
        """As after power-on, but for the generation, which only grows."""
        self._counts["resets"] += 1
        if self._activated:
            self.device.reset()
        self._take(
            MmioState(
                config_generation=self.config.generation,
                queues=(RingState(),) * len(self.rings),
            )
        )

    # The register page

    def _show_registers(self) -> None:
        sel = self._device_sel
        features = self._offered() >> 32 * sel if sel <= 1 else 0
        for offset, value in (
            (reg.DEVICE_FEATURES, features & reg.U32),
            (reg.QUEUE_NUM_MAX, self._queues.num_max),
            (reg.QUEUE_READY, int(self._queues.ready)),
            (reg.STATUS, int(self._status)),
        ):
            self.page.store(offset, 4, value)

    # Snapshots

    def _take(self, state: MmioState) -> None:
        """Become ``state``, all rings off."""
        self._queues.reset()
        self._queues.take(state.queues)
        self._queues.select = state.queue_sel
        self._status = Status(state.status)
        self._device_sel = state.device_features_sel
        self._driver_sel = state.driver_features_sel
        self._driver_features = state.driver_features
        self.config.generation = state.config_generation
        self._activated = False
        self._kicks.clear()
        self.fault = ""
        if Status.FEATURES_OK in self._status and not self._features_agree():
            raise SnapshotError(
                f"mmio: driver_features {self._driver_features:#x} were not offered"
            )
        self._show_all(state.interrupt_status)

    def _show_all(self, interrupt_status: int) -> None:
        for offset, value in (
            (reg.MAGIC_VALUE, reg.MAGIC),
            (reg.DEVICE_VERSION, reg.VERSION),
            (reg.DEVICE_TYPE, self.device.DEVICE_ID),
            (reg.INTERRUPT_STATUS, interrupt_status),
        ):
            self.page.store(offset, 4, value)
        self._show_registers()
        self.config.show()

    def _resume(self, state: MmioState) -> None:
        try:
            self._activate(state.queues)
        except GuestError as error:
            raise SnapshotError(f"mmio: {error}") from error


@record("mmio", 1)
class MmioState:
    """A transport's registers and rings.

    ``activated``: the device was started; DRIVER_OK without it is a start that
    failed. Rings of a device that was not started have never been used.
    """

    status: U32 = 0
    device_features_sel: U32 = 0
    driver_features_sel: U32 = 0
    driver_features: int = 0
    queue_sel: U32 = 0
    interrupt_status: U32 = 0
    config_generation: U32 = 0
    activated: bool = False
    queues: tuple[RingState, ...] = ()

    def __post_init__(self) -> None:
        """SnapshotError naming the field that is out of range."""
        for name, top in (
            ("device_features_sel", reg.U32),
            ("driver_features_sel", reg.U32),
            ("driver_features", (1 << 64) - 1),
            ("queue_sel", reg.U32),
            ("interrupt_status", int(Interrupt.USED_RING | Interrupt.CONFIG)),
            ("config_generation", reg.U32),
        ):
            value: int = getattr(self, name)
            if not 0 <= value <= top:
                raise SnapshotError(f"mmio: {name} {value} is out of range")
        if self.status not in reg.STATUSES:
            raise SnapshotError(f"mmio: status {self.status} cannot be")
        self._check_activated()

    def _check_activated(self) -> None:
        if self.activated and not self.status & Status.DRIVER_OK:
            raise SnapshotError("mmio: activated without DRIVER_OK")
        event_idx = bool(self.driver_features & RING_EVENT_IDX)
        for ring in self.queues:
            started = self.activated and ring.ready
            if not started and (ring.next_avail or ring.next_used):
                raise SnapshotError("mmio: a ring that is off has been used")
            if ring.event_idx != (started and event_idx):
                raise SnapshotError("mmio: event_idx is not what was agreed")
