"""Exceptions, interrupts, NMIs and SMIs in flight: kvm_vcpu_events."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.cpu import layout
from vmmd.state.record import U8, U32, record

if TYPE_CHECKING:
    from typing import Self

_EVENTS = struct.Struct("<4BI4B3BxII4BB26xBQ")


@record("kvm_vcpu_events", 1)
class VcpuEvents:
    """``struct kvm_vcpu_events``, 64 bytes; ``exception.nr`` is ``exception_nr``.

    ``flags`` (KVM_VCPUEVENT_VALID_*) says which optional parts count when set.
    """

    exception_injected: U8 = 0
    exception_nr: U8 = 0
    exception_has_error_code: U8 = 0
    exception_pending: U8 = 0
    exception_error_code: U32 = 0
    interrupt_injected: U8 = 0
    interrupt_nr: U8 = 0
    interrupt_soft: U8 = 0
    interrupt_shadow: U8 = 0
    nmi_injected: U8 = 0
    nmi_pending: U8 = 0
    nmi_masked: U8 = 0
    sipi_vector: U32 = 0
    flags: U32 = 0
    smi_smm: U8 = 0
    smi_pending: U8 = 0
    smi_smm_inside_nmi: U8 = 0
    smi_latched_init: U8 = 0
    triple_fault_pending: U8 = 0
    exception_has_payload: U8 = 0
    exception_payload: int = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_EVENTS, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_EVENTS, cls, raw)
