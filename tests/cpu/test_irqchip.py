"""The IOAPIC's pins by name, and what goes into one kvm_irqchip."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.irqchip import (
    IoapicState,
    PicState,
    RedirectEntry,
    pack_irqchip,
    unpack_ioapic,
    unpack_pic,
)

U64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)


@given(U64)
def test_a_pin_is_its_register(bits: int) -> None:
    assert RedirectEntry.of(bits).bits() == bits


def test_the_fields_of_a_pin() -> None:
    # Vector 0x31, lowest priority, logical, low, level, masked, to processors 3.
    pin = RedirectEntry.of(0x0300_0000_0001_A931)
    assert (pin.vector, pin.delivery_mode, pin.dest_mode) == (0x31, 1, 1)
    assert (pin.polarity, pin.trig_mode, pin.mask, pin.dest_id) == (1, 1, 1, 3)
    assert (pin.delivery_status, pin.remote_irr, pin.reserved) == (0, 0, 0)


@pytest.mark.parametrize("field", RedirectEntry.__dataclass_fields__)
def test_a_pins_field_that_is_too_wide_is_refused(field: str) -> None:
    names = list(RedirectEntry.__dataclass_fields__)
    width = (8, 3, 1, 1, 1, 1, 1, 1, 39, 8)[names.index(field)]
    with pytest.raises(ValueError, match=f"{field} has {width} bits"):
        dataclasses.replace(RedirectEntry(), **{field: 1 << width}).bits()


@given(pins=st.lists(U64, min_size=24, max_size=24))
def test_the_ioapic_is_carried_in_a_kvm_irqchip(pins: list[int]) -> None:
    entries = tuple(RedirectEntry.of(pin) for pin in pins)
    state = IoapicState(ioregsel=7, id=1, irr=1 << 4, redirtbl=entries)
    raw = pack_irqchip(2, state)
    assert (len(raw), raw[0]) == (520, 2)
    assert unpack_ioapic(raw) == state


@given(st.binary(min_size=16, max_size=16))
def test_a_pic_is_carried_in_a_kvm_irqchip(raw: bytes) -> None:
    state = PicState.unpack(raw)
    assert unpack_pic(pack_irqchip(1, state)) == state


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="23 pins"):
        IoapicState(redirtbl=(RedirectEntry(),) * 23).pack()
    for unpack in (unpack_pic, unpack_ioapic):
        with pytest.raises(ValueError, match="kvm_irqchip"):
            unpack(bytes(519))
