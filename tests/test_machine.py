"""A machine as a whole: buses to chips and devices, what comes of it, its state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import layout
from vmmd.bus import Space, Window
from vmmd.cpu.exits import EndReason
from vmmd.machine import Machine, MachineState
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.block import Backing, BlockDevice, BlockState

LCR, DLAB = 3, b"\x83"


def machine(
    drives: int = 0, state: MachineState | None = None, *, boot_timer: bool = False
) -> Machine:
    memory = GuestMemory([Region(0, bytearray(1 << 16))])
    devices = [
        (
            f"drive{i}",
            BlockDevice.restore(
                BlockState(drive_id=f"drive{i}", path_on_host="x"),
                Backing(-1, 4096 * (i + 1), b"id"),
            ),
        )
        for i in range(drives)
    ]
    return Machine(memory, devices, state or MachineState(), boot_timer=boot_timer)


def test_output_goes_through_the_serial_port() -> None:
    guest = machine()
    guest.io_out(layout.COM1_PORT, 1, b"hello")
    assert guest.serial.take_output() == b"hello"


def test_a_string_read_takes_one_byte_after_the_other() -> None:
    guest = machine()
    guest.serial.receive(b"abc")
    assert guest.io_in(layout.COM1_PORT, 1, 3) == b"abc"


def test_the_divisor_latch_turns_posting_off_and_the_loop_is_told() -> None:
    guest, told = machine(), list[Window]()
    guest.on_rules = told.append
    window = guest.bus.find(Space.PIO, layout.COM1_PORT)
    assert window is not None
    posted = window.rules
    guest.io_out(layout.COM1_PORT + LCR, 1, DLAB)
    assert told == [window]
    assert window.rules != posted
    guest.io_out(layout.COM1_PORT + LCR, 1, b"\x03")
    assert told == [window, window]
    assert window.rules == posted


def test_the_keyboard_controller_resets() -> None:
    guest = machine()
    assert guest.take_end() is None
    guest.io_out(layout.I8042_COMMAND_PORT, 1, bytes([layout.I8042_RESET]))
    end = guest.take_end()
    assert end is not None
    assert end.reason is EndReason.I8042_RESET
    assert guest.take_end() is None


def test_acpi_powers_off() -> None:
    guest = machine()
    value = layout.S5_SLEEP_TYPE << 2 | layout.SLEEP_ENABLE
    guest.io_out(layout.SLEEP_CONTROL_PORT, 1, bytes([value]))
    end = guest.take_end()
    assert end is not None
    assert end.reason is EndReason.POWER_OFF
    assert end.exit_code == 0


def test_ctrl_alt_del_interrupts_once() -> None:
    guest = machine()
    assert guest.i8042.ctrl_alt_del()
    assert guest.take_interrupts() == (layout.KEYBOARD_GSI,)
    assert guest.take_interrupts() == ()


def test_devices_lie_in_their_slots() -> None:
    guest = machine(drives=3)
    for i, attached in enumerate(guest.attached):
        assert attached.slot.gsi == layout.GSI_FIRST + i
        assert guest.mmio_read(attached.slot.base, 4) == b"virt"
        config = attached.slot.base + 0x100
        assert int.from_bytes(guest.mmio_read(config, 4), "little") == 8 * (i + 1)


def test_the_boot_timer_is_there_only_if_asked_for() -> None:
    assert machine().mmio_read(layout.BOOT_TIMER, 1) == b"\xff"
    guest = machine(boot_timer=True)
    guest.mmio_write(layout.BOOT_TIMER, bytes([123]))
    assert guest.boot_timer is not None
    assert guest.boot_timer.take_signal()


def test_nobody_answers_elsewhere() -> None:
    guest = machine()
    assert guest.io_in(0x70, 1, 2) == b"\xff\xff"
    guest.io_out(0x80, 1, b"\x01")
    assert guest.mmio_read(0xD000_0000, 8) == b"\xff" * 8
    assert guest.bus.unclaimed_reads == 3
    assert guest.bus.unclaimed_writes == 1


PORTS = st.sampled_from(
    [
        *range(layout.COM1_PORT, layout.COM1_PORT + 8),
        layout.I8042_DATA_PORT,
        layout.I8042_COMMAND_PORT,
        layout.SLEEP_CONTROL_PORT,
    ]
)


@given(st.lists(st.tuples(PORTS, st.integers(0, 255)), max_size=40))
def test_a_restored_machine_is_the_one_that_was_saved(
    writes: list[tuple[int, int]],
) -> None:
    before = machine(drives=1)
    for port, value in writes:
        before.io_out(port, 1, bytes([value]))
    before.serial.take_output()
    before.take_end()
    after = machine(1, before.save())
    assert after.save() == before.save()
    for port in {port for port, _ in writes}:
        assert after.io_in(port, 1, 1) == before.io_in(port, 1, 1)


@pytest.mark.parametrize("count", [18, 19, 20])
def test_too_many_devices_are_refused(count: int) -> None:
    with pytest.raises(Exception, match="Could not attach device"):
        machine(drives=count)


def with_system_memory(drives: int, state: MachineState | None = None) -> Machine:
    memory = GuestMemory([Region(0, bytearray(1 << 20))])
    made = machine(drives, state)
    made.memory = memory
    return made


def test_a_boot_says_which_generation_it_is() -> None:
    guest = with_system_memory(2)
    guest.tell_generation(bytes(range(16)), restored=False)
    assert guest.memory.read(layout.VMGENID, 16) == bytes(range(16))
    assert guest.memory.read(layout.VMCLOCK, 4) == b"VCLK"
    assert guest.generation_gsis == (7, 8)


def test_a_restore_says_that_it_is_another() -> None:
    first = with_system_memory(2)
    first.tell_generation(bytes(16), restored=False)
    guest = with_system_memory(2, first.save())
    guest.tell_generation(b"\1" * 16, restored=True)
    assert guest.memory.read(layout.VMGENID, 16) == b"\1" * 16
    assert guest.memory.load_u64(layout.VMCLOCK + 104) == 1
    assert guest.generation_gsis == first.generation_gsis
    # What is not written anew is in the memory that came with the snapshot.
    assert guest.memory.read(layout.VMCLOCK, 4) == bytes(4)
    assert guest.memory.dirty_bitmaps()[0][layout.VMGENID >> 15] & 0xC0
