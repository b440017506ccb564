"""Every record class of vmmd, an example of each, and strategies to draw them.

Examples stand behind the golden files: an example of a record never changes but
for a field that is new.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from pathlib import Path
from typing import Annotated, Any

from hypothesis import strategies as st

from vmmd.chips.i8042 import I8042State
from vmmd.chips.serial import SerialState
from vmmd.limiter import BucketState, LimiterState
from vmmd.mmds.state import MmdsState
from vmmd.state.codec import kind_of
from vmmd.state.record import IntRange, Length
from vmmd.virtio.block import BlockState
from vmmd.virtio.mmio import MmioState
from vmmd.virtio.net import NetState
from vmmd.virtio.ring import RingState
from vmmd.vm_info import VmInfo

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy

PACKAGE = Path(__file__).resolve().parents[2] / "vmmd"
_U64 = IntRange(0, (1 << 64) - 1)
_NOT_IN_FILES = {"header"}  # it is the file's own map


def record_classes() -> dict[str, type]:
    """Every class marked ``@record``, by kind, read from the source."""
    found: dict[str, type] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "\n@record(" in path.read_text():
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            module = importlib.import_module(".".join(parts))
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__ == module.__name__:
                    _add(found, value)
    return found


def _add(found: dict[str, type], cls: type) -> None:
    if hasattr(cls, "RECORD") and kind_of(cls).kind not in _NOT_IN_FILES:
        found[kind_of(cls).kind] = cls


# Examples.


def example(cls: type) -> Any:  # noqa: ANN401 (a record of any class)
    """The example of a record class: numbers that tell the fields apart."""
    if cls in _EXAMPLES:
        return _EXAMPLES[cls]
    hints = typing.get_type_hints(cls, include_extras=True)
    names = typing.cast("Any", cls).__dataclass_fields__
    values = {name: _example(hints[name], seed) for seed, name in enumerate(names)}
    return cls(**values)


def _example(hint: Any, seed: int) -> Any:  # noqa: ANN401 (an annotation, a value)
    simple = {int: 0x1234_5678_9ABC_DEF0 + seed, bool: seed % 2 == 0}
    if hint in simple:
        return simple[hint]
    if hint in (str, bytes):
        return f"field {seed}" if hint is str else bytes((seed, 0xFF))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return _sized_example(arguments[0], arguments[1], seed)
    if typing.get_origin(hint) is tuple:
        inner = [item for item in arguments if item is not Ellipsis]
        return tuple(_example(item, seed) for item in inner)
    if arguments:
        return _example(arguments[0], seed)
    return example(hint)


def _sized_example(hint: Any, limits: IntRange | Length, seed: int) -> Any:  # noqa: ANN401 (as above)
    if isinstance(limits, IntRange):
        return limits.high - seed if limits.high > seed else limits.high
    if hint is bytes:
        return bytes(i * 7 + seed & 0xFF for i in range(max(limits.low, 16)))
    one: tuple[Any, ...] = _example(hint, seed)
    return one * max(limits.low, 1)


RING = RingState(
    ready=True,
    size=256,
    desc=0x1_0000,
    avail=0x1_1000,
    used=0x1_2000,
    next_avail=0xFFFF,
    next_used=0xFFFE,
    signalled_used=0xFFFE,
    signalled_valid=True,
    in_flight=(3,),
)
_EXAMPLES: dict[type, Any] = {
    RingState: RING,
    MmioState: MmioState(
        status=15,
        device_features_sel=1,
        driver_features_sel=1,
        driver_features=1 << 32,
        queue_sel=1,
        interrupt_status=1,
        config_generation=7,
        activated=True,
        queues=(RING, RingState()),
    ),
    BlockState: BlockState(
        drive_id="rootfs",
        path_on_host="/images/rootfs.ext4",
        is_read_only=False,
        is_root_device=True,
        partuuid="0eaa91a0-01",
        cache_type="Writeback",
        io_engine="Async",
        limiter=LimiterState(
            bandwidth=BucketState(
                size=1_048_576, refill_time=100, budget=-5, elapsed_ns=1_000
            )
        ),
    ),
    NetState: NetState(
        iface_id="eth0",
        host_dev_name="tap0",
        guest_mac=bytes.fromhex("06000a000001"),
        mtu=None,
        mmds_ipv4=bytes((169, 254, 169, 254)),
        rx_limiter=LimiterState(
            ops=BucketState(size=100, refill_time=1_000, budget=7, one_time_burst=3)
        ),
    ),
    VmInfo: VmInfo(
        vcpu_count=2,
        mem_size_mib=256,
        smt=True,
        cpu_template="T2",
        huge_pages="2M",
        kernel_image_path="/images/vmlinux",
        initrd_path="/images/initrd",
        boot_args="console=ttyS0",
    ),
    MmdsState: MmdsState(version="V2", imds_compat=True),
    SerialState: SerialState(
        baud_divisor_low=1,
        interrupt_enable=5,
        fifo_control=1,
        scratch=0x55,
        overrun=True,
        in_buffer=b"login\n",
    ),
    I8042State: I8042State(keyboard_command=0xED, buffer=b"\xfa"),
}


# Strategies.


def records(cls: type) -> SearchStrategy[Any]:
    """Records of a class: anything that its annotations and itself allow."""
    if cls in _STRATEGIES:
        return _STRATEGIES[cls]
    hints = typing.get_type_hints(cls, include_extras=True)
    names = typing.cast("Any", cls).__dataclass_fields__
    return st.builds(cls, **{name: _values(hints[name]) for name in names})


def _values(hint: Any) -> SearchStrategy[Any]:  # noqa: ANN401 (an annotation)
    simple: dict[Any, SearchStrategy[Any]] = {
        int: st.integers(_U64.low, _U64.high),
        bool: st.booleans(),
        str: st.text(max_size=20),
        bytes: st.binary(max_size=20),
    }
    if hint in simple:
        return simple[hint]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return _sized_values(arguments[0], arguments[1])
    if typing.get_origin(hint) is tuple:
        if arguments[1:] == (...,):
            return st.lists(_values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(_values, arguments))
    if arguments:
        return st.none() | _values(arguments[0])
    return records(hint)


def _sized_values(hint: Any, limits: IntRange | Length) -> SearchStrategy[Any]:  # noqa: ANN401 (an annotation)
    if isinstance(limits, IntRange):
        return st.integers(limits.low, limits.high)
    if hint is bytes:
        return st.integers(0, 255).map(lambda byte: bytes([byte]) * limits.low)
    item = _values(typing.get_args(hint)[0])
    return st.lists(
        item, min_size=limits.low, max_size=max(limits.low, min(limits.high, 3))
    ).map(tuple)


def _ring(next_used: int, in_flight: set[int], plain: RingState) -> RingState:
    heads = tuple(sorted(in_flight))
    return RingState(
        ready=True,
        size=256,
        desc=plain.desc,
        avail=plain.avail,
        used=plain.used,
        event_idx=plain.event_idx,
        next_avail=(next_used + len(heads)) & 0xFFFF,
        next_used=next_used,
        signalled_used=plain.signalled_used,
        signalled_valid=plain.signalled_valid,
        broken=plain.broken,
        in_flight=heads,
    )


_U16 = st.integers(0, 0xFFFF)
_ADDRESS = st.integers(0, (1 << 64) - 1)
_PLAIN_RINGS = st.builds(
    RingState,
    desc=_ADDRESS,
    avail=_ADDRESS,
    used=_ADDRESS,
    event_idx=st.booleans(),
    signalled_used=_U16,
    signalled_valid=st.booleans(),
    broken=st.booleans(),
)
_RINGS = st.builds(_ring, _U16, st.sets(st.integers(0, 255), max_size=3), _PLAIN_RINGS)
_STRATEGIES: dict[type, SearchStrategy[Any]] = {
    RingState: _RINGS,
    MmioState: st.lists(_RINGS, max_size=3).flatmap(
        lambda rings: st.builds(
            MmioState,
            status=st.just(15),
            driver_features=st.just(1 << 29 if _all_suppress(rings) else 0),
            activated=st.just(True),
            interrupt_status=st.integers(0, 3),
            queues=st.just(tuple(_alike(rings))),
        )
    ),
    BlockState: st.builds(
        BlockState,
        drive_id=st.text(max_size=8),
        path_on_host=st.text(max_size=8),
        is_read_only=st.booleans(),
        partuuid=st.none() | st.text(max_size=8),
        cache_type=st.sampled_from(["Unsafe", "Writeback"]),
        io_engine=st.sampled_from(["Sync", "Async"]),
    ),
    NetState: st.builds(
        NetState,
        iface_id=st.text(max_size=8),
        host_dev_name=st.text(max_size=8),
        guest_mac=st.none() | st.binary(min_size=6, max_size=6),
        mtu=st.none() | st.integers(68, 0xFFFF),
        mmds_ipv4=st.none() | st.binary(min_size=4, max_size=4),
    ),
    VmInfo: st.builds(
        VmInfo,
        vcpu_count=st.integers(1, 32),
        mem_size_mib=st.integers(1, 1 << 20),
        smt=st.booleans(),
        cpu_template=st.none() | st.sampled_from(["T2", "C3"]),
        huge_pages=st.sampled_from(["None", "2M"]),
        kernel_image_path=st.text(max_size=8),
        boot_args=st.none() | st.text(max_size=8),
    ),
}


def _all_suppress(rings: list[RingState]) -> bool:
    return bool(rings) and all(ring.event_idx for ring in rings)


def _alike(rings: list[RingState]) -> Iterator[RingState]:
    """The rings, none suppressing notifications unless all do."""
    for ring in rings:
        yield dataclasses.replace(ring, event_idx=_all_suppress(rings))
