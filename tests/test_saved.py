"""A whole machine as records, and what is wrong with records that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmmd.boot import layout
from vmmd.boot.image import Entry
from vmmd.chips.serial import SerialState
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.clock import ClockData
from vmmd.cpu.irqchip import unpack_ioapic, unpack_pic
from vmmd.cpu.pit import PitState
from vmmd.cpu.topology import Topology
from vmmd.cpu.vm_state import VmState
from vmmd.errors import SnapshotError
from vmmd.machine import MachineState
from vmmd.mmds.state import MmdsState
from vmmd.saved import RECORDS, Saved, records, saved_of
from vmmd.state.codec import pack, unpack
from vmmd.virtio.block import BlockState
from vmmd.virtio.mmio import MmioState
from vmmd.virtio.net import NetState
from vmmd.vm_info import VmInfo

CLOCK = ClockData.unpack(bytes(48))
CHIP = bytes(520)
ENTRY = Entry("linux64", 0x10_0000, layout.ZERO_PAGE)
SAVED = Saved(
    VmInfo(vcpu_count=2, mem_size_mib=16),
    VmState(
        pitstate=PitState.unpack(bytes(112)),
        clock=CLOCK,
        pic_master=unpack_pic(CHIP),
        pic_slave=unpack_pic(CHIP),
        ioapic=unpack_ioapic(CHIP),
    ),
    tuple(boot_vcpu(Topology(i, 2), (), ENTRY) for i in range(2)),
    MachineState(
        serial=SerialState(scratch=7),
        transports=tuple(MmioState(queue_sel=i) for i in range(3)),
        devices=(
            ("block/b", BlockState(drive_id="b", path_on_host="/b")),
            ("block/a", BlockState(drive_id="a", path_on_host="/a")),
            ("net/a", NetState(iface_id="a", host_dev_name="t")),
        ),
    ),
    MmdsState(version="V2"),
)
ALL = list(records(SAVED))


def test_there_and_back_in_any_order_of_records_but_the_devices() -> None:
    assert saved_of(ALL) == SAVED
    assert saved_of([*ALL[3:], *ALL[:3]]) == SAVED


def test_devices_keep_their_order_which_is_that_of_their_slots() -> None:
    names = [name for name, _ in saved_of(ALL).machine.devices]
    assert names == ["block/b", "block/a", "net/a"]


def test_through_entries() -> None:
    by_kind = {cls.RECORD.kind: cls for cls in RECORDS}  # type: ignore[attr-defined]  # set by @record
    entries = [pack(record, record_id) for record_id, record in ALL]
    found: list[tuple[str, object]] = [
        (entry.id, unpack(entry, by_kind[entry.kind])) for entry in entries
    ]
    assert saved_of(found) == SAVED


@pytest.mark.parametrize("at", range(len(ALL)))
def test_each_record_that_is_missing_is_named_or_new(at: int) -> None:
    _, record = ALL[at]
    rest = [*ALL[:at], *ALL[at + 1 :]]
    if isinstance(record, SerialState):
        made = saved_of(rest)
        assert made.machine == replace(SAVED.machine, serial=SerialState())
    elif isinstance(record, MmdsState):
        assert saved_of(rest) == replace(SAVED, mmds=None)
    elif type(record).__name__ in ("I8042State", "PowerState"):
        assert saved_of(rest) == SAVED
    else:
        with pytest.raises(SnapshotError, match=r"is missing|belongs to nothing"):
            saved_of(rest)


@pytest.mark.parametrize("at", range(len(ALL)))
def test_each_record_may_be_there_once(at: int) -> None:
    with pytest.raises(SnapshotError, match="is there twice"):
        saved_of([*ALL, ALL[at]])


def test_a_vcpu_too_many() -> None:
    with pytest.raises(SnapshotError, match="vcpu 2 belongs to nothing"):
        saved_of([*ALL, ("2", SAVED.vcpus[0])])


def test_a_transport_without_its_device() -> None:
    with pytest.raises(SnapshotError, match="mmio block/c belongs to nothing"):
        saved_of([*ALL, ("block/c", MmioState())])
