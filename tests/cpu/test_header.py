"""The records' layouts against the kernel's own header, compiled by gcc."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from vmmd.cpu.clock import ClockData
from vmmd.cpu.cpuid import CpuidEntry
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Fpu, Xcrs, Xsave
from vmmd.cpu.irqchip import IoapicState, PicState
from vmmd.cpu.lapic import reset_lapic
from vmmd.cpu.pit import PitChannel, PitState
from vmmd.cpu.registers import (
    DebugRegs,
    DescriptorTable,
    MpState,
    Regs,
    Segment,
    Sregs,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.kvm_structs import KvmStruct

    Measure = Callable[[list[str]], list[int]]

GROUPS = ("exception", "interrupt", "nmi", "smi", "triple_fault")
FLAT: dict[str, KvmStruct] = {
    "kvm_regs": Regs(),
    "kvm_segment": Segment(),
    "kvm_dtable": DescriptorTable(),
    "kvm_debugregs": DebugRegs(),
    "kvm_mp_state": MpState(),
    "kvm_fpu": Fpu(),
    "kvm_cpuid_entry2": CpuidEntry(function=0),
    "kvm_vcpu_events": VcpuEvents(),
    "kvm_clock_data": ClockData(),
    "kvm_pic_state": PicState(),
}
OTHERS: dict[str, KvmStruct] = {
    "kvm_sregs": Sregs.unpack(bytes(312)),
    "kvm_xsave": Xsave(),
    "kvm_xcrs": Xcrs(),
    "kvm_lapic_state": reset_lapic(0),
    "kvm_pit_channel_state": PitChannel(),
    "kvm_pit_state2": PitState(),
    "kvm_ioapic_state": IoapicState(),
}


def c_member(struct: str, field: str) -> str:
    """What the header calls the field of ``struct``."""
    if struct == "kvm_debugregs":
        return re.sub(r"^db(\d)$", r"db[\1]", field)
    if struct == "kvm_vcpu_events" and "payload" not in field:
        for group in GROUPS:
            if field.startswith(f"{group}_"):
                return f"{group}.{field.removeprefix(f'{group}_')}"
    return field


def with_field(item: KvmStruct, field: str, width: int) -> bytes:
    """``item`` packed with all bits of ``field`` set, or none if ``width`` is 0."""
    old = getattr(item, field)
    value: int | bytes = (1 << 8 * width) - 1
    if isinstance(old, bytes):
        value = (b"\xff" if width else b"\0") * len(old)
    return replace(item, field, value).pack()


def replace(item: KvmStruct, field: str, value: int | bytes) -> KvmStruct:
    values = {name: getattr(item, name) for name in fields(item)}
    return type(item)(**values | {field: value})


def fields(item: KvmStruct) -> list[str]:
    return [field.name for field in dataclasses.fields(item)]  # type: ignore[arg-type]  # every record is a dataclass


def changed_span(item: KvmStruct, field: str) -> tuple[int, int]:
    """The offset and size of the bytes that depend on ``field`` alone."""
    for width in (8, 4, 2, 1):
        try:
            ones = with_field(item, field, width)
        except ValueError:
            continue
        break
    zeros = with_field(item, field, 0)
    differ = [i for i, (a, b) in enumerate(zip(zeros, ones, strict=True)) if a != b]
    return differ[0], len(differ)


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Evaluates constant C expressions over <linux/kvm.h>."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: the kernel's header cannot be read")
    folder: Path = tmp_path_factory.mktemp("header")

    def evaluate(expressions: list[str]) -> list[int]:
        body = "".join(f'printf("%zu\\n", (size_t)({e}));' for e in expressions)
        source = folder / "layout.c"
        source.write_text(
            "#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\n"
            f"int main(void) {{ {body} return 0; }}\n"
        )
        subprocess.run(["gcc", "-o", folder / "layout", source], check=True)
        done = subprocess.run(
            [folder / "layout"], check=True, capture_output=True, text=True
        )
        return [int(line) for line in done.stdout.split()]

    return evaluate


def test_every_field_lies_where_the_header_says(measure: Measure) -> None:
    places: dict[str, tuple[int, int]] = {}
    expressions: list[str] = []
    for struct, item in FLAT.items():
        for field in fields(item):
            member = f"((struct {struct} *)0)->{c_member(struct, field)}"
            places[member] = changed_span(item, field)
            expressions += [f"&{member}", f"sizeof {member}"]
    numbers = measure(expressions)
    measured = zip(numbers[::2], numbers[1::2], strict=True)
    assert dict(zip(places, measured, strict=True)) == places


def test_every_struct_has_its_size(measure: Measure) -> None:
    items = FLAT | OTHERS
    sizes = measure([f"sizeof(struct {struct})" for struct in items])
    assert [len(item.pack()) for item in items.values()] == sizes


@pytest.mark.parametrize(
    ("struct", "cls", "size"),
    [
        ("kvm_sregs", Sregs, 312),
        ("kvm_pit_channel_state", PitChannel, 24),
        ("kvm_pit_state2", PitState, 112),
        ("kvm_ioapic_state", IoapicState, 216),
    ],
)
def test_members_lie_where_the_header_says(
    measure: Measure, struct: str, cls: type[KvmStruct], size: int
) -> None:
    zero = cls.unpack(bytes(size))
    names = fields(zero)
    offsets = measure([f"offsetof(struct {struct}, {name})" for name in names])
    for name, offset in zip(names, offsets, strict=True):
        raw = bytearray(size)
        raw[offset] = 0x5A
        item = cls.unpack(bytes(raw))
        changed = [f for f in names if getattr(item, f) != getattr(zero, f)]
        assert changed == [name]
