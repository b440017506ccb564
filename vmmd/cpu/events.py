"""Exceptions, interrupts, NMIs and SMIs in flight: kvm_vcpu_events."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.cpu import layout
from vmmd.state.record import record

if TYPE_CHECKING:
    from typing import Self

_EVENTS = struct.Struct("<4BI4B3BxII4BB26xBQ")


@record("kvm_vcpu_events", 1)
class VcpuEvents:
    """``struct kvm_vcpu_events``, 64 bytes; ``exception.nr`` is ``exception_nr``.

    ``flags`` (KVM_VCPUEVENT_VALID_*) says which optional parts count when set.
    """

    exception_injected: int = 0
    exception_nr: int = 0
    exception_has_error_code: int = 0
    exception_pending: int = 0
    exception_error_code: int = 0
    interrupt_injected: int = 0
    interrupt_nr: int = 0
    interrupt_soft: int = 0
    interrupt_shadow: int = 0
    nmi_injected: int = 0
    nmi_pending: int = 0
    nmi_masked: int = 0
    sipi_vector: int = 0
    flags: int = 0
    smi_smm: int = 0
    smi_pending: int = 0
    smi_smm_inside_nmi: int = 0
    smi_latched_init: int = 0
    triple_fault_pending: int = 0
    exception_has_payload: int = 0
    exception_payload: int = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_EVENTS, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_EVENTS, cls, raw)
