"""The interrupt controllers that KVM emulates: two PICs and the IOAPIC."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from vmmd.cpu import layout
from vmmd.state.record import U8, U32, IntRange, Length, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

IOAPIC_PINS = 24
IOAPIC_ADDRESS = 0xFEC0_0000
IRQCHIP_SIZE = 520

_HEAD = struct.Struct("<I4x")
_PIC = struct.Struct("<16B")
_IOAPIC = struct.Struct("<QIIII")
_IOAPIC_SIZE = _IOAPIC.size + 8 * IOAPIC_PINS
# Widths in bits of a redirection entry's fields, from bit 0 up.
_ENTRY_BITS = (8, 3, 1, 1, 1, 1, 1, 1, 39, 8)
_Bit = Annotated[int, IntRange(0, 1)]
_ThreeBits = Annotated[int, IntRange(0, (1 << 3) - 1)]
_ReservedBits = Annotated[int, IntRange(0, (1 << 39) - 1)]


@record("kvm_pic_state", 1)
class PicState:
    """``struct kvm_pic_state``, 16 bytes: one 8259A."""

    last_irr: U8 = 0
    irr: U8 = 0
    imr: U8 = 0
    isr: U8 = 0
    priority_add: U8 = 0
    irq_base: U8 = 0
    read_reg_select: U8 = 0
    poll: U8 = 0
    special_mask: U8 = 0
    init_state: U8 = 0
    auto_eoi: U8 = 0
    rotate_on_auto_eoi: U8 = 0
    special_fully_nested_mode: U8 = 0
    init4: U8 = 0
    elcr: U8 = 0
    elcr_mask: U8 = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_PIC, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_PIC, cls, raw)


@record("kvm_ioapic_redirect_entry", 1)
class RedirectEntry:
    """One IOAPIC pin: ``kvm_ioapic_redirect_entry``, 64 bits; masked at reset."""

    vector: U8 = 0
    delivery_mode: _ThreeBits = 0
    dest_mode: _Bit = 0
    delivery_status: _Bit = 0
    polarity: _Bit = 0
    remote_irr: _Bit = 0
    trig_mode: _Bit = 0
    mask: _Bit = 1
    reserved: _ReservedBits = 0
    dest_id: U8 = 0

    def bits(self) -> int:
        """The register's 64 bits. ValueError if a field has too many."""
        value, at = 0, 0
        fields = zip(self.__dataclass_fields__, _ENTRY_BITS, strict=True)
        for name, width in fields:
            field: int = getattr(self, name)
            if not 0 <= field < 1 << width:
                raise ValueError(f"RedirectEntry: {name} has {width} bits: {field:#x}")
            value |= field << at
            at += width
        return value

    @classmethod
    def of(cls, bits: int) -> Self:
        """From the register's 64 bits."""
        return cls(*_split(bits))


def _split(bits: int) -> Iterator[int]:
    for width in _ENTRY_BITS:
        yield bits & ((1 << width) - 1)
        bits >>= width


@record("kvm_ioapic_state", 1)
class IoapicState:
    """``struct kvm_ioapic_state``, 216 bytes, with its 24 pins."""

    base_address: int = IOAPIC_ADDRESS
    ioregsel: U32 = 0
    id: U32 = 0
    irr: U32 = 0
    pad: U32 = 0
    redirtbl: Annotated[tuple[RedirectEntry, ...], Length(IOAPIC_PINS, IOAPIC_PINS)] = (
        RedirectEntry(),
    ) * IOAPIC_PINS

    def pack(self) -> bytes:
        """The kernel's bytes. ValueError unless there are 24 pins."""
        *values, pins = layout.field_values(self)
        if len(pins) != IOAPIC_PINS:
            raise ValueError(f"IoapicState: {len(pins)} pins, not {IOAPIC_PINS}")
        head = layout.pack_values(_IOAPIC, values, "IoapicState")
        return head + struct.pack(f"<{IOAPIC_PINS}Q", *(pin.bits() for pin in pins))

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        layout.check_size(raw, _IOAPIC_SIZE, "IoapicState")
        pins = struct.unpack_from(f"<{IOAPIC_PINS}Q", raw, _IOAPIC.size)
        values = (*_IOAPIC.unpack_from(raw), tuple(RedirectEntry.of(p) for p in pins))
        return cls(**dict(zip(cls.__dataclass_fields__, values, strict=True)))


def pack_irqchip(chip_id: int, state: PicState | IoapicState) -> bytes:
    """``struct kvm_irqchip``, 520 bytes, of the chip ``chip_id`` (KVM_IRQCHIP_*)."""
    return (_HEAD.pack(chip_id) + state.pack()).ljust(IRQCHIP_SIZE, b"\0")


def unpack_pic(raw: bytes) -> PicState:
    """The PIC in a ``struct kvm_irqchip``."""
    layout.check_size(raw, IRQCHIP_SIZE, "kvm_irqchip")
    return PicState.unpack(raw[_HEAD.size :][: _PIC.size])


def unpack_ioapic(raw: bytes) -> IoapicState:
    """The IOAPIC in a ``struct kvm_irqchip``."""
    layout.check_size(raw, IRQCHIP_SIZE, "kvm_irqchip")
    return IoapicState.unpack(raw[_HEAD.size :][:_IOAPIC_SIZE])
