"""One guest's machine: memory, buses, chips and devices. Owns no fd.

The loop hands it exits and posted writes; it answers them from its devices and
says afterwards what came of them: interrupts to raise, an end that the guest
asked for. There is one way to build it, from a state: a cold boot's is the
default one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot import layout
from vmmd.bus import Bus, Space, Window
from vmmd.chips import boottimer, i8042, power, serial, vmclock, vmgenid
from vmmd.cpu.exits import EndReason, VmEnd
from vmmd.frozen import dataclass
from vmmd.virtio.mmio import MmioState, MmioTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from vmmd.boot.layout import MmioSlot
    from vmmd.bus import BusDevice, RegisterPage, Rule
    from vmmd.memory import GuestMemory
    from vmmd.virtio.device import VirtioDevice

    class Chip(BusDevice, Protocol):
        """A device with a register page of its own."""

        page: RegisterPage

        @property
        def rules(self) -> tuple[Rule, ...]:
            """How its window is served."""


_SERIAL = serial.SerialState()
_I8042 = i8042.I8042State()
_POWER = power.PowerState()


@dataclass(frozen=True, slots=True)
class MachineState:
    """What a machine starts from; the default is a cold boot's.

    ``transports`` has a state per device, in their order, and ``devices`` each
    device's record by its name; or both are empty: all cold. Without records of
    VMGenID and VMClock they are where a boot puts them.
    """

    serial: serial.SerialState = _SERIAL
    i8042: i8042.I8042State = _I8042
    power: power.PowerState = _POWER
    transports: tuple[MmioState, ...] = ()
    devices: tuple[tuple[str, object], ...] = ()
    vmgenid: vmgenid.VmGenIdState | None = None
    vmclock: vmclock.VmClockState | None = None

    def device(self, name: str) -> object:
        """The saved record of the device ``name``; None: it is a new one."""
        return dict(self.devices).get(name)


@dataclass(frozen=True, slots=True)
class Attached:
    """A virtio device in its slot."""

    name: str
    slot: MmioSlot
    device: VirtioDevice
    transport: MmioTransport


COLD = MachineState()
"""Of a machine that was just switched on."""


class Machine:
    """The guest's hardware but its processors.

    ``devices`` are ``(name, device)`` in attach order; each gets the next slot.
    """

    def __init__(
        self,
        memory: GuestMemory,
        devices: Sequence[tuple[str, VirtioDevice]] = (),
        state: MachineState = COLD,
        *,
        boot_timer: bool = False,
    ) -> None:
        self.memory = memory
        self.bus = Bus()
        self.serial = serial.Serial.restore(state.serial)
        self.i8042 = i8042.I8042.restore(state.i8042)
        self.power = power.Power.restore(state.power)
        self.boot_timer = boottimer.BootTimer() if boot_timer else None
        self.on_rules: Callable[[Window], None] = lambda _window: None
        self._serial_window = self._pio(self.serial, layout.COM1_PORT, serial.LENGTH)
        self._pio(self.i8042, layout.I8042_DATA_PORT, i8042.LENGTH)
        self._pio(self.power, layout.SLEEP_CONTROL_PORT, power.LENGTH)
        if self.boot_timer is not None:
            self._add(Space.MMIO, self.boot_timer, layout.BOOT_TIMER, boottimer.LENGTH)
        self.attached = self._attach(devices, state.transports)
        gsis = layout.acpi_gsis(len(devices))
        self.vmgenid = vmgenid.VmGenId.restore(
            state.vmgenid or vmgenid.VmGenIdState(gsi=gsis[0])
        )
        self.vmclock = vmclock.VmClock.restore(
            state.vmclock or vmclock.VmClockState(gsi=gsis[1])
        )

    def _attach(
        self,
        devices: Sequence[tuple[str, VirtioDevice]],
        states: tuple[MmioState, ...],
    ) -> tuple[Attached, ...]:
        attached = []
        slots = layout.virtio_slots(len(devices))
        for i, ((name, device), slot) in enumerate(zip(devices, slots, strict=True)):
            state = states[i] if states else None
            transport = MmioTransport(device, self.memory, slot.base, state)
            transport.config.on_rules = self._rules_changed
            self.bus.add(transport.window)
            attached.append(Attached(name, slot, device, transport))
        return tuple(attached)

    def _pio(self, chip: Chip, base: int, length: int) -> Window:
        return self._add(Space.PIO, chip, base, length)

    def _add(self, space: Space, chip: Chip, base: int, length: int) -> Window:
        window = Window(space, base, length, chip, chip.page, chip.rules)
        self.bus.add(window)
        return window

    def _rules_changed(self, window: Window) -> None:
        self.on_rules(window)

    # What vCPUs ask

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """A posted write, in the guest's order."""
        window.device.write(offset, size, value)

    def io_in(self, port: int, size: int, count: int) -> bytes:
        """``count`` reads of a port, one after the other."""
        read = self.bus.read
        values = (read(Space.PIO, port, size) for _ in range(count))
        return b"".join(value.to_bytes(size, "little") for value in values)

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """``len(data) // size`` writes to a port, one after the other."""
        for at in range(0, len(data), size):
            value = int.from_bytes(data[at : at + size], "little")
            self.bus.write(Space.PIO, port, size, value)
        if self.serial.rules_changed:
            self.serial.rules_changed = False
            self._serial_window.rules = self.serial.rules
            self.on_rules(self._serial_window)

    def mmio_read(self, address: int, size: int) -> bytes:
        """A read of 1 to 8 bytes."""
        return self.bus.read(Space.MMIO, address, size).to_bytes(size, "little")

    def mmio_write(self, address: int, data: bytes) -> None:
        """A write of 1 to 8 bytes."""
        value = int.from_bytes(data, "little")
        self.bus.write(Space.MMIO, address, len(data), value)

    # What came of it

    def take_interrupts(self) -> tuple[int, ...]:
        """GSIs of chips that want an edge since the last call."""
        com1 = (layout.COM1_GSI,) if self.serial.take_interrupt() else ()
        keyboard = (layout.KEYBOARD_GSI,) if self.i8042.take_interrupt() else ()
        return com1 + keyboard

    def take_end(self) -> VmEnd | None:
        """The end that the guest has asked for, if it has."""
        if self.i8042.take_reset():
            return VmEnd(EndReason.I8042_RESET)
        if self.power.take_request() is not None:
            return VmEnd(EndReason.POWER_OFF)
        return None

    # What it tells the guest by itself

    @property
    def generation_gsis(self) -> tuple[int, int]:
        """The interrupts of VMGenID and VMClock."""
        return self.vmgenid.gsi, self.vmclock.gsi

    def tell_generation(self, generation_id: bytes, *, restored: bool) -> None:
        """Write into guest memory which machine this is: once, before it runs.

        ``generation_id`` is 16 random bytes. A restored guest is to hear of it:
        signal ``generation_gsis`` once KVM has the interrupt controllers' state.
        """
        disrupted = self.vmclock.disrupt() if restored else (self.vmclock.page(),)
        for gpa, data in (self.vmgenid.renew(generation_id), *disrupted):
            self.memory.write(gpa, data)

    def save(self) -> MachineState:
        """The state; the guest is paused and nothing is in flight."""
        return MachineState(
            serial=self.serial.save(),
            i8042=self.i8042.save(),
            power=self.power.save(),
            transports=tuple(a.transport.save() for a in self.attached),
            devices=tuple((a.name, a.device.save()) for a in self.attached),
            vmgenid=self.vmgenid.save(),
            vmclock=self.vmclock.save(),
        )

    def statistics(self) -> dict[str, object]:
        """Counters of every part, by name."""
        return {
            "serial": self.serial.statistics(),
            "i8042": self.i8042.statistics(),
            "power": self.power.statistics(),
            **{a.name: a.device.statistics() for a in self.attached},
        }
