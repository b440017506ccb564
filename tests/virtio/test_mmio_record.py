"""The record of the transport: what is saved goes on, what is hostile is refused."""

from __future__ import annotations

import dataclasses

import pytest

from tests.helpers.driver import guest_memory
from tests.helpers.echo import EchoDevice, EchoState
from tests.helpers.mmio_echo import BASE, IN, OUT, running
from vmmd.errors import SnapshotError
from vmmd.virtio import registers as reg
from vmmd.virtio.device import RING_EVENT_IDX, VERSION_1, Interrupt
from vmmd.virtio.mmio import MmioState, MmioTransport
from vmmd.virtio.ring import RingState


def test_a_restored_device_goes_on_where_it_was() -> None:
    guest, device = running()
    driver = guest.drivers[0]
    driver.add([OUT, IN])
    device.serve()
    driver.add([OUT, IN])
    memory = guest.transport.memory
    twin_device = EchoDevice.restore(device.save())
    twin = MmioTransport(twin_device, memory, BASE, guest.transport.save())
    assert twin.save() == guest.transport.save()
    assert twin.active
    assert twin.page.load(reg.STATUS, 4) == reg.RUNNING
    assert twin.irq.status is Interrupt.USED_RING
    twin.irq.resignal()
    assert twin.irq.raised == 1
    twin_device.serve()
    assert len(driver.reap()) == 2


def test_resignal_is_quiet_when_nothing_waits() -> None:
    guest, _ = running()
    guest.transport.irq.resignal()
    assert guest.transport.irq.raised == 0


GOOD = MmioState(
    status=15,
    driver_features=VERSION_1,
    activated=True,
    queues=(
        RingState(ready=True, size=8, desc=0x1000, avail=0x2000, used=0x3000),
        RingState(),
    ),
)


def test_the_good_record_is_good() -> None:
    transport = MmioTransport(EchoDevice(EchoState()), guest_memory(), state=GOOD)
    assert transport.save() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"status": 4},
        {"status": 256},
        {"status": 11},
        {"queue_sel": 1 << 32},
        {"device_features_sel": -1},
        {"driver_features": 1 << 64},
        {"driver_features": VERSION_1 | 1},
        {"driver_features": 0},
        {"driver_features": VERSION_1 | RING_EVENT_IDX},
        {"interrupt_status": 4},
        {"config_generation": 1 << 32},
        {"queues": ()},
        {"queues": (RingState(size=7), RingState())},
        {"queues": (RingState(size=16), RingState())},
        {"queues": (RingState(ready=True, size=8, desc=1 << 40), RingState())},
        {"queues": (RingState(ready=True), RingState())},
        {"queues": (RingState(next_avail=1, next_used=1), RingState())},
        {"queues": (RingState(event_idx=True), RingState())},
    ],
    ids=str,
)
def test_a_hostile_record_is_refused(change: dict[str, object]) -> None:
    device = EchoDevice(EchoState())
    with pytest.raises(SnapshotError, match=r"^mmio: "):
        MmioTransport(
            device,
            guest_memory(),
            state=dataclasses.replace(GOOD, **change),  # type: ignore[arg-type]  # wrong on purpose
        )
    assert device.activation is None
