"""General, segment, control and debug registers: KVM's structs with names.

Field names, order and widths are those of ``<asm/kvm.h>``. Every record packs to
and unpacks from the bytes that the KVM_GET_* and KVM_SET_* calls carry; reserved
bytes are zero. A value that does not fit, or bytes of the wrong size, give a
ValueError that names the record.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING

from vmmd.cpu import layout
from vmmd.state.record import U8, U16, U32, record

if TYPE_CHECKING:
    from typing import Self

CR0_PE = 1 << 0
CR0_ET = 1 << 4
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
RFLAGS_RESERVED_1 = 1 << 1
APIC_BASE_ADDRESS = 0xFEE0_0000
APIC_BASE_BSP = 1 << 8
APIC_BASE_ENABLE = 1 << 11
DR6_RESET = 0xFFFF_0FF0
DR7_RESET = 0x400

_REGS = struct.Struct("<18Q")
_SEGMENT = struct.Struct("<QIHBBBBBBBBBx")
_TABLE = struct.Struct("<QH6x")
_CONTROL = struct.Struct("<7Q4Q")
_DEBUGREGS = struct.Struct("<4QQQQ72x")
_MP_STATE = struct.Struct("<I")
SREGS_SIZE = 8 * _SEGMENT.size + 2 * _TABLE.size + _CONTROL.size


class RunState(enum.IntEnum):
    """KVM_MP_STATE_*: what a vCPU is doing; a fresh AP waits for INIT and SIPI."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4


@record("kvm_regs", 1)
class Regs:
    """``struct kvm_regs``, 144 bytes."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = RFLAGS_RESERVED_1

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_REGS, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_REGS, cls, raw)


@record("kvm_segment", 1)
class Segment:
    """``struct kvm_segment``, 24 bytes. ``limit`` is in bytes, whatever ``g`` is."""

    base: int = 0
    limit: U32 = 0
    selector: U16 = 0
    type: U8 = 0
    present: U8 = 0
    dpl: U8 = 0
    db: U8 = 0
    s: U8 = 0
    l: U8 = 0  # noqa: E741 (the kernel's name: 64-bit code)
    g: U8 = 0
    avl: U8 = 0
    unusable: U8 = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_SEGMENT, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_SEGMENT, cls, raw)


@record("kvm_dtable", 1)
class DescriptorTable:
    """``struct kvm_dtable``, 16 bytes: where GDT or IDT lie."""

    base: int = 0
    limit: U16 = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_TABLE, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_TABLE, cls, raw)


@record("kvm_sregs", 1)
class Sregs:
    """``struct kvm_sregs``, 312 bytes. ``interrupt_bitmap`` is four 64-bit words."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int
    interrupt_bitmap: tuple[int, int, int, int] = (0, 0, 0, 0)

    def pack(self) -> bytes:
        """The kernel's bytes."""
        values = layout.field_values(self)
        control = (*values[10:17], *self.interrupt_bitmap)
        parts = (item.pack() for item in values[:10])
        return b"".join(parts) + layout.pack_values(_CONTROL, control, "Sregs")

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        layout.check_size(raw, SREGS_SIZE, "Sregs")
        segments = [Segment.unpack(raw[i : i + 24]) for i in range(0, 192, 24)]
        tables = [DescriptorTable.unpack(raw[i : i + 16]) for i in (192, 208)]
        control = _CONTROL.unpack(raw[224:])
        names = list(cls.__dataclass_fields__)
        values = (*segments, *tables, *control[:7], control[7:])
        return cls(**dict(zip(names, values, strict=True)))


@record("kvm_debugregs", 1)
class DebugRegs:
    """``struct kvm_debugregs``, 128 bytes."""

    db0: int = 0
    db1: int = 0
    db2: int = 0
    db3: int = 0
    dr6: int = DR6_RESET
    dr7: int = DR7_RESET
    flags: int = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_DEBUGREGS, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_DEBUGREGS, cls, raw)


@record("kvm_mp_state", 1)
class MpState:
    """``struct kvm_mp_state``, 4 bytes: a :class:`RunState`."""

    mp_state: U32 = RunState.RUNNABLE

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_MP_STATE, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_MP_STATE, cls, raw)
