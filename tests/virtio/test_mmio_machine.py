"""The transport under any sequence of writes, and as the echo device owes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.driver import RingLayout, guest_memory
from tests.helpers.echo import EchoDevice, EchoState
from tests.helpers.mmio_guest import Guest
from tests.helpers.properties import (
    Case,
    check_answered_once,
    check_no_escape,
    check_round_trip,
    check_twin,
    registers,
    repack,
)
from tests.strategies import chains, long_lists
from vmmd.virtio import registers as reg
from vmmd.virtio.device import VERSION_1, Status
from vmmd.virtio.mmio import MmioTransport

ECHO = Case(
    build=lambda state: EchoDevice(state or EchoState()),
    requests=chains(),
    records=st.builds(
        EchoState,
        config=st.binary(min_size=12, max_size=12),
        answered=st.integers(0, (1 << 63) - 1),
    ),
)


@given(st.data())
def test_no_escape(data: st.DataObject) -> None:
    check_no_escape(ECHO, data)


@given(st.data())
def test_every_chain_is_answered_once(data: st.DataObject) -> None:
    check_answered_once(ECHO, data)


@given(st.data())
def test_twin(data: st.DataObject) -> None:
    check_twin(ECHO, data)


@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    check_round_trip(ECHO, data)


def ladder_holds(transport: MmioTransport) -> None:
    """What is true of a transport whatever was written to it."""
    status = transport.status
    assert int(status) in reg.STATUSES
    state = transport.save()  # and its record is one that would be restored
    if Status.FEATURES_OK in status:
        assert state.driver_features & VERSION_1
        assert not state.driver_features & ~EchoDevice.features
    assert transport.active is (state.activated and Status.NEEDS_RESET not in status)
    if not state.activated:
        assert not any(ring.ready for ring in transport.rings)
    for offset, value in (
        (reg.STATUS, int(status)),
        (reg.QUEUE_NUM_MAX, {0: 8, 1: 4}.get(state.queue_sel, 0)),
        (reg.CONFIG_GENERATION, state.config_generation),
    ):
        assert transport.page.load(offset, 4) == value
    assert transport.page.load(reg.CONFIG, 8) == int.from_bytes(
        transport.device.config_space()[:8], "little"
    )


@given(long_lists(registers(), 60), st.integers(0, 2))
def test_any_sequence_of_writes(
    writes: list[tuple[int, int, int]], head_start: int
) -> None:
    device = EchoDevice(EchoState())
    guest = Guest(MmioTransport(device, guest_memory()))
    if head_start > 0:
        guest.add_status(Status.ACKNOWLEDGE)
        guest.add_status(Status.DRIVER)
        guest.take_features(EchoDevice.features)
        guest.add_status(Status.FEATURES_OK)
    if head_start > 1:
        guest.set_up_queue(0, RingLayout.at(0x1000, 8))
    for offset, value, size in writes:
        guest.transport.write(offset, size, value)
        ladder_holds(guest.transport)
    state = guest.transport.save()
    assert repack(state) == state
    twin = MmioTransport(EchoDevice(device.save()), guest_memory(), state=state)
    assert twin.save() == state
    ladder_holds(twin)
    guest.write(reg.STATUS, 0)
    guest.probe([RingLayout.at(0x1000, 8), RingLayout.at(0x2000, 4)])
    assert guest.transport.active
