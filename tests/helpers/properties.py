"""What every virtio device owes, written once: see the five ``check_`` functions.

A device joins with a :class:`Case`; its test file calls each check under
``@given(st.data())``. Devices are driven through their transport, by a guest
that is honest, or not.
"""

from __future__ import annotations

import ast
import dataclasses
import typing
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hypothesis import strategies as st

from tests.helpers.driver import Driver, RingLayout
from tests.helpers.mmio_guest import Guest
from tests.strategies import MEMORY_SIZE, U16, U32, long_lists, mischief
from vmmd.errors import GuestError, SnapshotError
from vmmd.memory import GuestMemory, Region
from vmmd.virtio import registers as reg
from vmmd.virtio.device import VirtioDevice
from vmmd.virtio.mmio import MmioTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DataObject, SearchStrategy

    from tests.helpers.driver import Buffer

GUARD = 0x1000
GUARD_BYTE = b"\xa5"
LAYOUTS = tuple(RingLayout.at(0x1000 + 0x800 * i, 4) for i in range(3))
T = TypeVar("T")


class Served(VirtioDevice, Protocol):
    """A device with one verb that answers all that waits, worker or not."""

    def serve(self) -> None:
        """Answer everything. GuestError when a ring is broken."""


D = TypeVar("D", bound=Served)


@dataclass(frozen=True, slots=True)
class Case(Generic[D]):
    """A device under test.

    ``build(record)``: a device from its record, None for a cold one. It may keep
    host state (a disk) per call: a twin needs its own. ``requests``: chains of
    which many make sense to the device. ``records``: any valid record.
    """

    build: Callable[[Any], D]
    requests: SearchStrategy[tuple[Buffer, ...]]
    records: SearchStrategy[Any]


class Rig(Generic[D]):
    """One device on its own memory, between guards, and its guest."""

    def __init__(self, case: Case[D], memory: bytes = bytes(MEMORY_SIZE)) -> None:
        self.case = case
        self.raw = bytearray(GUARD_BYTE * GUARD + memory + GUARD_BYTE * GUARD)
        inside = memoryview(self.raw)[GUARD:-GUARD]
        self.memory = GuestMemory([Region(0, inside)])
        self.device = case.build(None)
        self.transport = MmioTransport(self.device, self.memory)
        self.guest = Guest(self.transport)

    def probe(self) -> list[Driver]:
        """Bring the driver up."""
        return self.guest.probe(list(LAYOUTS[: len(self.device.QUEUE_SIZES)]))

    def serve(self) -> None:
        """As its pump does: a broken ring means NEEDS_RESET."""
        try:
            if self.transport.active:
                self.device.serve()
        except GuestError:
            self.transport.mark_broken()

    def twin(self) -> Rig[D]:
        """A copy that was saved, packed, unpacked and restored."""
        other = Rig(self.case, bytes(self.raw[GUARD:-GUARD]))
        other.device = self.case.build(repack(self.device.save()))
        state = repack(self.transport.save())
        other.transport = MmioTransport(other.device, other.memory, state=state)
        other.guest = Guest(other.transport)
        for driver in self.guest.drivers:
            copy = dataclasses.replace(driver, memory=other.memory)
            copy.free, copy.chains = list(driver.free), dict(driver.chains)
            other.guest.drivers.append(copy)
        return other

    def seen(self) -> tuple[object, ...]:
        """All that must be equal between twins."""
        return (
            self.device.save(),
            self.transport.save(),
            bytes(self.raw),
            bytes(self.transport.page.load(i, 1) for i in range(0x200)),
        )

    def check_guards(self) -> None:
        """Nothing outside guest memory was written."""
        assert self.raw[:GUARD] == self.raw[-GUARD:] == GUARD_BYTE * GUARD


_PLAUSIBLE = {
    reg.STATUS: (1, 3, 11, 15, 11, 15, 0, 4, 128),
    reg.DRIVER_FEATURES: (0, 1, 1 << 29, 1 << 5),
    reg.DRIVER_FEATURES_SEL: (0, 1, 2),
    reg.DEVICE_FEATURES_SEL: (0, 1, 2),
    reg.QUEUE_SEL: (0, 1, 2),
    reg.QUEUE_NUM: (0, 1, 2, 3, 4, 8, 16, 256, 512),
    reg.QUEUE_READY: (1, 0, 2),
    reg.QUEUE_NOTIFY: (0, 1, 2),
    reg.QUEUE_DESC: (0x1000, 0x1008),
    reg.QUEUE_AVAIL: (0x2000, 0x2001),
    reg.QUEUE_USED: (0x3000, 0xFFFC),
    reg.QUEUE_USED + 4: (0, 1),
    reg.INTERRUPT_ACK: (1, 2, 3),
}


def registers() -> SearchStrategy[tuple[int, int, int]]:
    """(offset, value, size) of writes: most nearly right, some anything."""
    near = st.sampled_from([(o, v) for o, values in _PLAUSIBLE.items() for v in values])
    sizes = st.sampled_from([1, 2, 4, 8])
    return st.one_of(
        *(near.map(lambda pair: (*pair, 4)) for _ in range(4)),
        st.tuples(st.integers(0, 0xFFF), U32, sizes),
        st.tuples(st.sampled_from(list(_PLAUSIBLE)), U32, sizes),
    )


def check_no_escape(case: Case[D], data: DataObject) -> None:
    """Any rings, any register writes: nothing is raised, nothing outside touched."""
    rig = Rig(case)
    rig.probe()
    step = st.one_of(mischief(), st.builds(_Request, case.requests), registers())
    for what in data.draw(long_lists(step, 20)):
        if isinstance(what, tuple):
            offset, value, size = what
            if offset + size <= 0x1000:
                rig.guest.write(offset, value, size)
        else:
            what.apply(rig.guest.drivers[data.draw(U16) % len(rig.guest.drivers)])
        rig.serve()
        rig.check_guards()
    rig.guest.write(reg.STATUS, 0)
    rig.probe()
    assert rig.transport.active
    rig.check_guards()


def check_answered_once(case: Case[D], data: DataObject) -> None:
    """Every chain of an honest driver is answered, each of them once."""
    rig = Rig(case)
    drivers = rig.probe()
    for batch in data.draw(st.lists(st.lists(case.requests, max_size=3), max_size=5)):
        driver = drivers[data.draw(U16) % len(drivers)]
        heads = [driver.add(c) for c in batch if len(c) <= len(driver.free)]
        rig.serve()
        assert rig.transport.active
        # reap raises KeyError for a head that was not in flight.
        assert sorted(head for head, _ in driver.reap()) == sorted(heads)
    if data.draw(st.booleans()):
        drivers[0].add(data.draw(case.requests.filter(lambda c: len(c) <= 4)))
        rig.guest.write(reg.STATUS, 0)
        rig.serve()
        used = LAYOUTS[0].used + 2
        before = rig.memory.load_u16(used)
        rig.serve()
        assert rig.memory.load_u16(used) == before


def check_twin(case: Case[D], data: DataObject) -> None:
    """Saved and restored at any point, a device goes on as if it had not been."""
    rig = Rig(case)
    rig.probe()
    steps = st.one_of(
        st.builds(_Request, case.requests), mischief(), registers(), st.just("serve")
    )
    for step in data.draw(long_lists(steps, 10)):
        _do(rig, step)
    rig.serve()
    twin = rig.twin()
    assert twin.seen() == rig.seen()
    for step in data.draw(long_lists(steps, 10)):
        raised = rig.transport.irq.raised, twin.transport.irq.raised
        for side in (rig, twin):
            _do(side, step)
            side.serve()
        assert twin.seen() == rig.seen()
        assert rig.transport.irq.raised - raised[0] == (
            twin.transport.irq.raised - raised[1]
        )


def check_round_trip(case: Case[D], data: DataObject) -> None:
    """A record survives packing, and a device made of it saves it again."""
    record = data.draw(case.records)
    assert repack(record) == record
    assert case.build(record).save() == record


@dataclass(frozen=True, slots=True)
class _Request:
    """A request of the device's own kind, if there are descriptors for it."""

    buffers: tuple[Buffer, ...]

    def apply(self, driver: Driver) -> None:
        if len(self.buffers) <= len(driver.free):
            driver.add(self.buffers)


def _do(rig: Rig[D], step: Any) -> None:  # noqa: ANN401  (a step of either party)
    match step:
        case "serve":
            rig.serve()
        case (offset, value, size):
            if offset + size <= 0x1000:
                rig.guest.write(offset, value, size)
        case _:
            for driver in rig.guest.drivers:
                step.apply(driver)


def repack(record: T) -> T:
    """The record as plain data, as text, and built anew from its field types."""
    plain = dataclasses.asdict(record)  # type: ignore[call-overload]  # T is a record
    return typing.cast("T", _build(type(record), ast.literal_eval(repr(plain))))


def _build(kind: Any, raw: Any) -> Any:  # noqa: ANN401  (a type and plain data)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType):
        return None if raw is None else _build(args[0], raw)
    if origin is tuple:
        kinds = [args[0]] * len(raw) if args[-1] is Ellipsis else args
        return tuple(_build(k, r) for k, r in zip(kinds, raw, strict=True))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], value) for name, value in raw.items()})  # type: ignore[operator]  # a class, not an instance
    if not isinstance(raw, kind):
        raise SnapshotError(f"{raw!r} is no {kind}")
    return raw
