"""Floating point and vector state: kvm_fpu, kvm_xsave, kvm_xcrs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from vmmd.cpu import layout
from vmmd.state.record import (
    SERIALIZATION,
    U8,
    U16,
    U32,
    Length,
    Refusal,
    downgrade,
    record,
    upgrade,
)

if TYPE_CHECKING:
    from typing import Self

    from vmmd.state.record import Fields, Loss, Notes

XSAVE_SIZE = 4096  # bytes of the struct without dynamically enabled features
_XSAVE_LIMIT = 0x1_0000  # no processor has nearly as many
KVM_MAX_XCRS = 16
FCW_RESET = 0x37F
MXCSR_RESET = 0x1F80
XSTATE_FP_SSE = 0b11

_FPU = struct.Struct("<128sHHBxHQQ256sI4x")
_XSAVE_FCW, _XSAVE_MXCSR, _XSAVE_XSTATE_BV = 0, 24, 512
_XCR = struct.Struct("<I4xQ")
_XCRS_HEAD = struct.Struct("<II")
_XCRS_SIZE = 392


@record("kvm_fpu", 1)
class Fpu:
    """``struct kvm_fpu``, 416 bytes; what XSAVE holds is not read from here."""

    fpr: Annotated[bytes, Length(128, 128)] = bytes(128)
    fcw: U16 = FCW_RESET
    fsw: U16 = 0
    ftwx: U8 = 0
    last_opcode: U16 = 0
    last_ip: int = 0
    last_dp: int = 0
    xmm: Annotated[bytes, Length(256, 256)] = bytes(256)
    mxcsr: U32 = MXCSR_RESET

    def pack(self) -> bytes:
        """The kernel's bytes. ValueError if a value or a length does not fit."""
        layout.check_size(self.fpr, 128, "Fpu.fpr")
        layout.check_size(self.xmm, 256, "Fpu.xmm")
        return layout.pack(_FPU, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_FPU, cls, raw)


def _reset_region() -> bytes:
    region = bytearray(XSAVE_SIZE)
    struct.pack_into("<H", region, _XSAVE_FCW, FCW_RESET)
    struct.pack_into("<I", region, _XSAVE_MXCSR, MXCSR_RESET)
    struct.pack_into("<Q", region, _XSAVE_XSTATE_BV, XSTATE_FP_SSE)
    return bytes(region)


@record("kvm_xsave", 2)
class Xsave:
    """``struct kvm_xsave``, kept whole: its areas lie as the host's CPUID 0xD says.

    4096 bytes, more only where a feature was enabled dynamically (AMX).
    """

    region: Annotated[bytes, Length(XSAVE_SIZE, _XSAVE_LIMIT)] = _reset_region()

    def pack(self, size: int = XSAVE_SIZE) -> bytes:
        """The kernel's bytes, ``size`` of them (KVM_CAP_XSAVE2), zero-padded.

        ValueError if the host's struct is shorter than what was saved.
        """
        if not XSAVE_SIZE <= len(self.region) <= size:
            raise ValueError(f"Xsave has {len(self.region)} bytes, the host's {size}")
        return self.region.ljust(size, b"\0")

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes. ValueError if they are under 4096."""
        if len(raw) < XSAVE_SIZE:
            raise ValueError(f"Xsave has at least {XSAVE_SIZE} bytes, not {len(raw)}")
        return cls(region=bytes(raw))


@upgrade(Xsave, 1)
def _xsave_of_any_size(fields: Fields) -> tuple[Fields, Notes]:
    """Version 1 had 4096 bytes always."""
    return fields, ()


@downgrade(Xsave, 2)
def _xsave_of_one_size(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    size = len(fields["region"])
    if size == XSAVE_SIZE:
        return fields, ()
    text = f"Cannot serialize {size} bytes of XSAVE state, only {XSAVE_SIZE}."
    return fields, (Refusal(("region",), text, SERIALIZATION),)


@record("kvm_xcrs", 1)
class Xcrs:
    """``struct kvm_xcrs``, 392 bytes: ``(number, value)`` of each, XCR0 = 1 at reset."""

    flags: U32 = 0
    xcrs: Annotated[tuple[tuple[U32, int], ...], Length(0, KVM_MAX_XCRS)] = ((0, 1),)

    def pack(self) -> bytes:
        """The kernel's bytes. ValueError if there are more than 16."""
        if len(self.xcrs) > KVM_MAX_XCRS:
            raise ValueError(f"Xcrs: {len(self.xcrs)} registers, at most 16")
        head = layout.pack_values(_XCRS_HEAD, (len(self.xcrs), self.flags), "Xcrs")
        items = (layout.pack_values(_XCR, xcr, "Xcrs") for xcr in self.xcrs)
        return (head + b"".join(items)).ljust(_XCRS_SIZE, b"\0")

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes. ValueError if the count cannot be."""
        layout.check_size(raw, _XCRS_SIZE, "Xcrs")
        count, flags = _XCRS_HEAD.unpack_from(raw)
        if count > KVM_MAX_XCRS:
            raise ValueError(f"Xcrs: {count} registers, at most 16")
        items = raw[_XCRS_HEAD.size :][: count * _XCR.size]
        return cls(flags=flags, xcrs=tuple(_XCR.iter_unpack(items)))
