"""VMGenID: other bytes at each restore, always at the same place."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import layout
from vmmd.chips.vmgenid import VmGenId, VmGenIdState
from vmmd.errors import SnapshotError

GOOD = VmGenIdState(gsi=5)


@given(st.binary(min_size=16, max_size=16))
def test_the_bytes_are_the_callers_and_go_to_the_saved_place(random: bytes) -> None:
    device = VmGenId.restore(VmGenIdState(gsi=22, address=0xA0008))
    assert device.renew(random) == (0xA0008, random)
    assert VmGenId.restore(device.save()).save() == device.save()


def test_a_boot_puts_them_at_the_end_of_system_memory() -> None:
    assert (GOOD.address, GOOD.gsi) == (0xDFFF0, 5)
    assert GOOD.address + 16 == layout.RSDP


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_generation_id_has_sixteen_bytes(size: int) -> None:
    with pytest.raises(ValueError, match=f"of {size} bytes"):
        VmGenId.restore(GOOD).renew(bytes(size))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", layout.SYSTEM_MEM_START - 8),
        ("address", layout.RSDP - 8),
        ("address", 0xA0004),
        ("address", -8),
        ("address", 1 << 64),
        ("gsi", 4),
        ("gsi", 24),
    ],
)
def test_a_record_that_cannot_be_names_its_field(field: str, value: int) -> None:
    bad = dataclasses.replace(GOOD, **{field: value})
    with pytest.raises(SnapshotError, match=f"vmgenid: {field} "):
        VmGenId.restore(bad)
