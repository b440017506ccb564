"""VMClock: the page as Linux reads it, and what a restore does to it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import layout
from vmmd.chips.vmclock import VmClock, VmClockPage, VmClockState
from vmmd.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterable

GOOD = VmClockState(gsi=6)
BASE = layout.VMCLOCK
U32 = st.integers(0, 0xFFFF_FFFF)
U64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)


def number(page: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(page[at : at + size], "little")


def written(page: bytearray, writes: Iterable[tuple[int, bytes]]) -> list[int]:
    """Do the writes; the sequence count after each."""
    seen = []
    for gpa, data in writes:
        page[gpa - BASE : gpa - BASE + len(data)] = data
        seen.append(number(page, 12, 4))
    return seen


def test_the_page_of_a_boot() -> None:
    gpa, page = VmClock.restore(GOOD).page()
    assert (gpa, len(page)) == (0xDE000, 112)
    assert page[:4] == b"VCLK"
    assert (number(page, 4, 4), number(page, 8, 2)) == (4096, 1)
    assert page[10] == 255  # no counter
    assert number(page, 24, 8) == 1 << 8 | 1 << 9
    assert page[34] == 0  # the clock's status is unknown
    rest = page[11:24] + page[32:34] + page[35:]
    assert not any(rest)


@given(seq=U32, marker=U64, generation=U64)
def test_a_restore_counts_under_an_odd_sequence(
    seq: int, marker: int, generation: int
) -> None:
    before = VmClockPage(
        seq_count=seq, disruption_marker=marker, vm_generation_counter=generation
    )
    device = VmClock.restore(dataclasses.replace(GOOD, inner=before))
    page = bytearray(device.page()[1])
    *during, after = written(page, device.disrupt())
    assert all(count % 2 == 1 for count in during)
    assert after == (seq | 1) + 1 & 0xFFFF_FFFF
    assert number(page, 16, 8) == (marker + 1) % 2**64
    assert number(page, 104, 8) == (generation + 1) % 2**64
    assert bytes(page) == device.page()[1]


def test_each_restore_is_another_generation() -> None:
    device = VmClock.restore(GOOD)
    for generation in range(1, 4):
        device.disrupt()
        device = VmClock.restore(device.save())
        inner = device.save().inner
        assert inner.vm_generation_counter == inner.disruption_marker == generation
        assert inner.seq_count == 2 * generation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guest_address", layout.SYSTEM_MEM_START - 4096),
        ("guest_address", layout.RSDP),
        ("guest_address", layout.VMCLOCK + 16),
        ("gsi", 4),
        ("gsi", 24),
        ("inner", VmClockPage(version=1 << 16)),
        ("inner", VmClockPage(seq_count=-1)),
    ],
)
def test_a_record_that_cannot_be_names_its_field(field: str, value: object) -> None:
    values = {"gsi": GOOD.gsi, field: value}
    with pytest.raises(SnapshotError, match=f"vmclock: {field}"):
        VmClock.restore(VmClockState(**values))  # type: ignore[arg-type]  # one of them is wrong on purpose or of its own type


@pytest.mark.parametrize("field", VmClockPage.__dataclass_fields__)
def test_each_field_has_bytes_of_its_own(field: str) -> None:
    one = dataclasses.replace(VmClockPage(), **{field: 0xA5})
    zero = dataclasses.replace(one, **{field: 0})
    differ = [
        i
        for i, pair in enumerate(zip(one.pack(), zero.pack(), strict=True))
        if pair[0] != pair[1]
    ]
    assert len(differ) == 1
