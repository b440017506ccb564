"""The transport: the ladder, features, queues, configuration, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.driver import RingLayout, guest_memory
from tests.helpers.echo import EchoDevice, EchoState
from tests.helpers.mmio_echo import BASE, IN, LAYOUTS, OUT, active, cold, running
from tests.helpers.mmio_guest import Guest
from vmmd.bus import Bus
from vmmd.virtio import registers as reg
from vmmd.virtio.device import RING_EVENT_IDX, VERSION_1, Interrupt, Status
from vmmd.virtio.mmio import MmioState, MmioTransport
from vmmd.virtio.ring import RingState

if TYPE_CHECKING:
    from vmmd.bus import Rule, Window


def to_features(guest: Guest) -> None:
    """Up to where features are taken."""
    guest.add_status(Status.ACKNOWLEDGE)
    guest.add_status(Status.DRIVER)


def illegal(guest: Guest) -> int:
    """Illegal writes so far."""
    return guest.transport.statistics().illegal_writes


def test_a_cold_device_shows_what_it_is() -> None:
    guest, _ = cold()
    assert guest.read(reg.MAGIC_VALUE) == 0x74726976
    assert guest.read(reg.DEVICE_VERSION) == 2
    assert guest.read(reg.DEVICE_TYPE) == 42
    assert guest.read(reg.VENDOR_ID) == 0
    assert guest.read(reg.STATUS) == 0
    assert guest.read(reg.CONFIG_GENERATION) == 0
    assert guest.offered() == EchoDevice.features
    assert guest.synchronous_reads == 0


def test_linux_probes_one_queue_with_twenty_synchronous_writes() -> None:
    class OneQueue(EchoDevice):
        QUEUE_SIZES = (256,)  # type: ignore[assignment]  # fewer queues than its parent

    guest = Guest(MmioTransport(OneQueue(EchoState()), guest_memory()))
    guest.probe([RingLayout.at(0x1000, 256)])
    assert active(guest)
    assert guest.synchronous_writes == 20
    assert guest.synchronous_reads == 0
    assert illegal(guest) == 0


def test_a_request_goes_through_and_interrupts() -> None:
    guest, device = running()
    driver = guest.drivers[0]
    driver.memory.write(OUT.gpa, b"0123456789abcdef")
    head = driver.add([OUT, IN])
    device.serve()
    assert driver.reap() == [(head, 16)]
    assert driver.memory.read(IN.gpa, 16) == b"0123456789abcdef"
    assert guest.transport.statistics().interrupts == 1
    writes = guest.synchronous_writes
    assert guest.acknowledge() == Interrupt.USED_RING
    assert guest.read(reg.INTERRUPT_STATUS) == 0
    assert guest.synchronous_writes == writes


def test_it_is_a_device_of_the_bus() -> None:
    guest, _ = cold()
    bus = Bus()
    bus.add(guest.transport.window)
    window = guest.transport.window
    assert (window.base, window.length) == (BASE, 0x1000)
    assert bus.read(window.space, BASE, 4) == 0x74726976
    bus.write(window.space, BASE + reg.STATUS, 4, 1)
    assert guest.transport.status is Status.ACKNOWLEDGE


ALL = [*range(16), 64, 79]


@pytest.mark.parametrize("rung", [0, 1, 3, 11, 15])
@pytest.mark.parametrize("value", ALL)
def test_the_ladder(rung: int, value: int) -> None:
    allowed = {(0, 1), (1, 3), (3, 11), (11, 15)}
    guest, _ = cold()
    to_features(guest) if rung >= 3 else guest.write(reg.STATUS, rung)
    guest.take_features(VERSION_1)
    for status in (11, 15):
        if rung >= status:
            guest.write(reg.STATUS, status)
    assert guest.read(reg.STATUS) == rung
    before = illegal(guest)
    guest.write(reg.STATUS, value)
    if value == 0 or (rung, value) in allowed:
        assert guest.read(reg.STATUS) == value
        assert illegal(guest) == before
    else:
        assert guest.read(reg.STATUS) == rung
        assert illegal(guest) == before + (value != rung)


@pytest.mark.parametrize("rung", [0, 1, 3])
def test_failed_stays_until_reset(rung: int) -> None:
    guest, _ = cold()
    guest.write(reg.STATUS, 1 if rung else 0)
    guest.write(reg.STATUS, rung)
    guest.write(reg.STATUS, rung | Status.FAILED)
    assert guest.read(reg.STATUS) == rung | Status.FAILED
    guest.add_status(Status.FEATURES_OK)
    assert guest.read(reg.STATUS) == rung | Status.FAILED
    guest.write(reg.STATUS, 0)
    assert guest.read(reg.STATUS) == 0


@pytest.mark.parametrize(
    "features", [0, RING_EVENT_IDX, VERSION_1 | 1, VERSION_1 | 1 << 63, 1 << 5]
)
def test_features_that_were_not_offered_are_refused(features: int) -> None:
    guest, _ = cold()
    to_features(guest)
    guest.take_features(features)
    guest.add_status(Status.FEATURES_OK)
    assert guest.read(reg.STATUS) == reg.DRIVEN
    guest.take_features(VERSION_1)
    guest.add_status(Status.FEATURES_OK)
    assert guest.read(reg.STATUS) == reg.AGREED


def test_feature_pages_beyond_the_second_are_empty() -> None:
    guest, _ = cold()
    to_features(guest)
    guest.write(reg.DEVICE_FEATURES_SEL, reg.U32)
    assert guest.read(reg.DEVICE_FEATURES) == 0
    guest.write(reg.DRIVER_FEATURES_SEL, 2)
    guest.write(reg.DRIVER_FEATURES, 0)
    assert illegal(guest) == 0
    guest.write(reg.DRIVER_FEATURES, 1)
    assert illegal(guest) == 1


def test_features_are_taken_only_before_features_ok() -> None:
    guest, _ = cold()
    guest.write(reg.DRIVER_FEATURES, 1 << 5)
    assert guest.transport.driver_features == 0
    to_features(guest)
    guest.take_features(VERSION_1)
    guest.add_status(Status.FEATURES_OK)
    guest.take_features(VERSION_1 | 1 << 5)
    assert guest.transport.driver_features == VERSION_1


def test_without_event_idx_flags_rule() -> None:
    guest, _ = cold()
    guest.probe(LAYOUTS, wanted=VERSION_1)
    assert not guest.transport.rings[0].native.event_idx
    guest, _ = running()
    assert guest.transport.rings[0].native.event_idx


def test_queues_are_configured_only_when_it_is_time() -> None:
    guest, _ = cold()
    guest.write(reg.QUEUE_NUM, 8)
    assert illegal(guest) == 1
    guest.probe(LAYOUTS)
    before = guest.transport.save()
    count = illegal(guest)
    for offset in (reg.QUEUE_NUM, reg.QUEUE_DESC, reg.QUEUE_USED + 4):
        guest.write(offset, 4)
    guest.write(reg.QUEUE_READY, 0)
    assert guest.transport.save() == before
    assert illegal(guest) == count + 4


def test_a_ready_queue_keeps_its_registers() -> None:
    guest, _ = cold()
    to_features(guest)
    guest.take_features(VERSION_1)
    guest.add_status(Status.FEATURES_OK)
    guest.set_up_queue(1, LAYOUTS[1])
    guest.write(reg.QUEUE_NUM, 2)
    guest.write(reg.QUEUE_AVAIL, 2)
    assert illegal(guest) == 2
    guest.write(reg.QUEUE_READY, 2)
    assert illegal(guest) == 3
    guest.write(reg.QUEUE_READY, 0)
    guest.write(reg.QUEUE_NUM, 2)
    assert illegal(guest) == 3
    assert guest.transport.save().queues[1].size == 2


@pytest.mark.parametrize("size", [0, 3, 16, reg.U32])
def test_queue_sizes_that_do_not_fit_are_ignored(size: int) -> None:
    guest, _ = cold()
    to_features(guest)
    guest.take_features(VERSION_1)
    guest.add_status(Status.FEATURES_OK)
    guest.write(reg.QUEUE_NUM, size)
    assert guest.transport.save().queues[0].size == 0
    assert illegal(guest) == 1


def test_a_queue_that_is_not_there_reads_as_zero() -> None:
    guest, _ = cold()
    guest.write(reg.QUEUE_SEL, 2)
    assert guest.read(reg.QUEUE_NUM_MAX) == 0
    assert guest.read(reg.QUEUE_READY) == 0
    guest.write(reg.QUEUE_READY, 1)
    guest.write(reg.QUEUE_SEL, 1)
    assert guest.read(reg.QUEUE_NUM_MAX) == 4
    assert guest.read(reg.QUEUE_READY) == 0
    assert illegal(guest) == 1


def test_a_queue_left_off_stays_empty() -> None:
    guest, device = cold()
    guest.probe(LAYOUTS[:1])
    assert active(guest)
    device.serve()
    assert [ring.ready for ring in guest.transport.rings] == [True, False]


@pytest.mark.parametrize("fault", ["ring", "device"])
def test_a_failed_activation_needs_a_reset(fault: str) -> None:
    guest, device = cold()
    device.refuse = "the device cannot" if fault == "device" else ""
    bad = RingLayout.at(0x1000 if fault == "device" else 0x1FFF0, 8)
    guest.probe([bad])
    assert guest.read(reg.STATUS) == reg.RUNNING | Status.NEEDS_RESET
    assert guest.acknowledge() == Interrupt.CONFIG
    assert not active(guest)
    expected = "the device cannot" if fault == "device" else "descriptor table"
    assert expected in guest.transport.fault
    assert not any(ring.ready for ring in guest.transport.rings)
    device.refuse = ""
    guest.probe(LAYOUTS)
    assert active(guest)
    assert device.resets == 0


def test_a_broken_ring_needs_a_reset_once() -> None:
    guest, device = running()
    guest.drivers[0].offer(99)
    with pytest.raises(Exception, match="head is outside"):
        device.serve()
    for _ in range(2):
        guest.transport.mark_broken()
    assert guest.transport.statistics().needs_resets == 1
    assert guest.transport.fault == "head is outside the table"
    assert not active(guest)
    assert guest.acknowledge() == Interrupt.CONFIG
    guest.write(reg.QUEUE_NOTIFY, 0)
    assert guest.transport.take_kicks() == ()
    guest.probe(LAYOUTS)
    assert active(guest)
    assert guest.transport.fault == ""
    assert device.resets == 1


def test_reset_of_an_active_device_forgets_all_but_the_generation() -> None:
    guest, device = running()
    guest.transport.config_changed()
    guest.drivers[0].add([OUT, IN])
    device.serve()
    guest.write(reg.QUEUE_NOTIFY, 1)
    guest.write(reg.STATUS, 0)
    assert device.activation is None
    assert guest.transport.take_kicks() == ()
    fresh = MmioState(config_generation=1, queues=(RingState(), RingState()))
    assert guest.transport.save() == fresh
    assert guest.read(reg.INTERRUPT_STATUS) == 0
    device.serve()
    guest.probe(LAYOUTS)
    assert active(guest)


def test_synchronous_kicks_are_reported_once() -> None:
    guest, _ = running()
    for index in (1, 0, 1):
        guest.write(reg.QUEUE_NOTIFY, index)
    assert guest.transport.take_kicks() == (0, 1)
    assert guest.transport.take_kicks() == ()
    guest.write(reg.QUEUE_NOTIFY, 2)
    assert guest.transport.take_kicks() == ()
    assert illegal(guest) == 1


def test_a_synchronous_acknowledgement_works_too() -> None:
    guest, _ = running()
    guest.transport.irq.raise_(Interrupt.USED_RING | Interrupt.CONFIG)
    guest.transport.write(reg.INTERRUPT_ACK, 4, 1)
    assert guest.transport.irq.status is Interrupt.CONFIG


@pytest.mark.parametrize("size", [1, 2, 8])
def test_registers_take_four_bytes_only(size: int) -> None:
    guest, _ = cold()
    guest.write(reg.STATUS, 1, size)
    assert guest.read(reg.STATUS) == 0
    assert guest.read(reg.MAGIC_VALUE, size) == 0
    assert illegal(guest) == 1
    assert guest.transport.statistics().illegal_reads == 1


def test_write_only_registers_read_as_zero() -> None:
    guest, _ = running()
    assert guest.read(reg.QUEUE_DESC) == 0
    assert guest.read(reg.QUEUE_NOTIFY) == 0
    assert guest.transport.statistics().illegal_reads == 2


def test_configuration_reads_of_every_size_and_place() -> None:
    guest, device = cold()
    device.config[:] = bytes(range(1, 13))
    guest.transport.config_changed()
    for size in (1, 2, 4, 8):
        for at in range(12):
            raw = (bytes(device.config) + bytes(8))[at : at + size]
            assert guest.read(reg.CONFIG + at, size) == int.from_bytes(raw, "little")
    assert guest.transport.read(reg.CONFIG + 0xEFC, 8) == 0
    assert guest.transport.read(reg.CONFIG, 3) == 0
    assert guest.transport.statistics().illegal_reads == 2


def test_the_driver_writes_its_part_of_the_configuration() -> None:
    guest, device = running()
    guest.write(reg.CONFIG + 4, 0x01020304)
    guest.write(reg.CONFIG, 0xFFFFFFFF)
    assert device.config == bytes(4) + bytes([4, 3, 2, 1]) + bytes(4)
    assert guest.read(reg.CONFIG + 4) == 0x01020304
    assert guest.read(reg.CONFIG_GENERATION) == 0
    assert illegal(guest) == 0
    guest.write(reg.CONFIG + 12, 1)
    guest.write(reg.CONFIG + 10, 1, 4)
    assert illegal(guest) == 2
    guest.write(reg.STATUS, 0)
    guest.write(reg.CONFIG + 4, 7)
    assert illegal(guest) == 3
    assert device.config[4] == 4


def test_a_changed_configuration_has_a_new_generation_and_interrupts() -> None:
    guest, device = running()
    device.config[0] = 7
    guest.transport.config_changed()
    assert guest.read(reg.CONFIG, 1) == 7
    assert guest.read(reg.CONFIG_GENERATION) == 1
    assert guest.acknowledge() == Interrupt.CONFIG
    guest.write(reg.STATUS, 0)
    guest.transport.config_changed()
    assert guest.acknowledge() == 0


def test_generation_is_the_loops_to_answer_while_the_configuration_changes() -> None:
    guest, device = running()
    page = guest.transport.page
    seen: list[tuple[bool, int, int]] = []

    def watch(window: Window) -> None:
        seen.append(
            (shadows_generation(window.rules), page.load(reg.CONFIG, 1), generation())
        )

    def generation() -> int:
        return page.load(reg.CONFIG_GENERATION, 4)

    guest.transport.config.on_rules = watch
    device.config[0] = 9
    guest.transport.config_changed()
    assert seen == [(False, 0, 0), (True, 9, 1)]


def shadows_generation(rules: tuple[Rule, ...]) -> bool:
    """Whether vCPU threads answer ConfigGeneration by themselves."""
    return any(rule.offset == reg.CONFIG_GENERATION for rule in rules)


def test_generation_wraps() -> None:
    device = EchoDevice(EchoState())
    state = MmioState(config_generation=reg.U32, queues=(RingState(), RingState()))
    transport = MmioTransport(device, guest_memory(), state=state)
    transport.config_changed()
    assert transport.save().config_generation == 0
