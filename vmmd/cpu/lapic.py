"""The local APIC's registers: kvm_lapic_state."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Annotated

from vmmd.cpu import layout
from vmmd.state.record import Length, record

if TYPE_CHECKING:
    from typing import Self

LAPIC_SIZE = 0x400
APIC_ID = 0x20
APIC_VERSION = 0x30
APIC_DFR = 0xE0
APIC_SPIV = 0xF0
APIC_LVT_TIMER = 0x320
APIC_LVT_THERMAL = 0x330
APIC_LVT_PC = 0x340
APIC_LVT0 = 0x350
APIC_LVT1 = 0x360
APIC_LVT_ERROR = 0x370

LVT_MASKED = 1 << 16
DELIVERY_NMI = 0x400
DELIVERY_EXTINT = 0x700
_DELIVERY_MODE = 0x700
_VERSION = 0x5_0014  # KVM's: six LVT entries, version 0x14
_RESET_LVTS = (
    APIC_LVT_TIMER,
    APIC_LVT_THERMAL,
    APIC_LVT_PC,
    APIC_LVT0,
    APIC_LVT1,
    APIC_LVT_ERROR,
)


@record("kvm_lapic_state", 1)
class Lapic:
    """``struct kvm_lapic_state``, 1024 bytes, kept whole."""

    regs: Annotated[bytes, Length(LAPIC_SIZE, LAPIC_SIZE)]

    def pack(self) -> bytes:
        """The kernel's bytes. ValueError if they are not 1024."""
        layout.check_size(self.regs, LAPIC_SIZE, "Lapic")
        return self.regs

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        layout.check_size(raw, LAPIC_SIZE, "Lapic")
        return cls(regs=bytes(raw))

    def get(self, offset: int) -> int:
        """The 32-bit register at ``offset``."""
        value: int = struct.unpack_from("<I", self.regs, offset)[0]
        return value

    def set(self, offset: int, value: int) -> Lapic:
        """The same with another value in the 32-bit register at ``offset``."""
        regs = bytearray(self.regs)
        struct.pack_into("<I", regs, offset, value)
        return dataclasses.replace(self, regs=bytes(regs))

    def with_delivery(self, lvt: int, mode: int) -> Lapic:
        """The same with another delivery mode, unmasked, in the entry at ``lvt``."""
        kept = self.get(lvt) & ~(_DELIVERY_MODE | LVT_MASKED)
        return self.set(lvt, kept | mode)


def reset_lapic(apic_id: int) -> Lapic:
    """As KVM resets it: all entries of the vector table masked, no interrupts."""
    values = {
        APIC_ID: apic_id << 24,
        APIC_VERSION: _VERSION,
        APIC_DFR: 0xFFFF_FFFF,
        APIC_SPIV: 0xFF,
        **dict.fromkeys(_RESET_LVTS, LVT_MASKED),
    }
    regs = bytearray(LAPIC_SIZE)
    for offset, value in values.items():
        struct.pack_into("<I", regs, offset, value)
    return Lapic(regs=bytes(regs))
