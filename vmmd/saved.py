"""All that a snapshot holds of a machine, as records in the order of the file.

The table of record classes is here and nowhere else; ``vmmd.state`` is handed
it and knows no device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.chips.i8042 import I8042State
from vmmd.chips.power import PowerState
from vmmd.chips.serial import SerialState
from vmmd.chips.vmclock import VmClockState
from vmmd.chips.vmgenid import VmGenIdState
from vmmd.cpu.state import VcpuState
from vmmd.cpu.vm_state import VmState
from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass
from vmmd.machine import MachineState
from vmmd.mmds.state import MmdsState
from vmmd.state.codec import kind_of, named
from vmmd.virtio.block import BlockState
from vmmd.virtio.mmio import MmioState
from vmmd.virtio.net import NetState
from vmmd.vm_info import VmInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_DEVICES: tuple[type, ...] = (BlockState, NetState)

RECORDS: tuple[type, ...] = (
    VmInfo,
    VmState,
    VcpuState,
    SerialState,
    I8042State,
    PowerState,
    VmGenIdState,
    VmClockState,
    *_DEVICES,
    MmioState,
    MmdsState,
)
"""Every class of record that stands in a file by itself."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole machine but its memory; what a create takes and a load gives."""

    info: VmInfo
    vm: VmState
    vcpus: tuple[VcpuState, ...]
    machine: MachineState
    mmds: MmdsState | None = None


def records(saved: Saved) -> Iterator[tuple[str, object]]:
    """``(id, record)`` in the order in which they stand in a file.

    A vCPU's id is its index, a device's is the one of the API, a transport's
    is its device's name: kind and id. What there is only one of has none.
    """
    yield "", saved.info
    yield "", saved.vm
    for index, vcpu in enumerate(saved.vcpus):
        yield str(index), vcpu
    machine = saved.machine
    for chip in (machine.serial, machine.i8042, machine.power):
        yield "", chip
    for placed in (machine.vmgenid, machine.vmclock):
        if placed is not None:
            yield "", placed
    for (name, device), transport in zip(
        machine.devices, machine.transports, strict=True
    ):
        yield name.partition("/")[2], device
        yield name, transport
    if saved.mmds is not None:
        yield "", saved.mmds


def saved_of(found: Iterable[tuple[str, object]]) -> Saved:
    """The machine that ``(id, record)`` pairs describe.

    SnapshotError names what is missing, is there twice, or is one too many.
    """
    by_name: dict[tuple[type, str], object] = {}
    for record_id, record in found:
        key = (type(record), record_id)
        if key in by_name:
            raise SnapshotError(f"{_name(type(record), record_id)} is there twice")
        by_name[key] = record
    info = _only(by_name, VmInfo)
    saved = Saved(
        info,
        _only(by_name, VmState),
        tuple(_take(by_name, VcpuState, str(i)) for i in range(info.vcpu_count)),
        _machine(by_name),
        _or_none(by_name, MmdsState),
    )
    for cls, record_id in by_name:
        raise SnapshotError(f"{_name(cls, record_id)} belongs to nothing")
    return saved


def _machine(by_name: dict[tuple[type, str], object]) -> MachineState:
    devices: list[tuple[str, object]] = []
    transports: list[MmioState] = []
    for cls, record_id in [key for key in by_name if key[0] in _DEVICES]:
        name = f"{kind_of(cls).kind}/{record_id}"
        devices.append((name, by_name.pop((cls, record_id))))
        transports.append(_take(by_name, MmioState, name))
    return MachineState(
        serial=_or_new(by_name, SerialState),
        i8042=_or_new(by_name, I8042State),
        power=_or_new(by_name, PowerState),
        transports=tuple(transports),
        devices=tuple(devices),
        vmgenid=_or_none(by_name, VmGenIdState),
        vmclock=_or_none(by_name, VmClockState),
    )


def _or_new(by_name: dict[tuple[type, str], object], cls: type[T]) -> T:
    """A chip's record; that of a new one where the file has none."""
    record = _or_none(by_name, cls)
    return cls() if record is None else record


def _or_none(by_name: dict[tuple[type, str], object], cls: type[T]) -> T | None:
    record = by_name.pop((cls, ""), None)
    return record if isinstance(record, cls) else None


def _only(by_name: dict[tuple[type, str], object], cls: type[T]) -> T:
    return _take(by_name, cls, "")


def _take(by_name: dict[tuple[type, str], object], cls: type[T], record_id: str) -> T:
    record = by_name.pop((cls, record_id), None)
    if not isinstance(record, cls):
        raise SnapshotError(f"{_name(cls, record_id)} is missing")
    return record


def _name(cls: type, record_id: str) -> str:
    return named(kind_of(cls).kind, record_id)
