"""Model-specific registers: names, what a boot sets, the order of setting them."""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING

from vmmd.cpu import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Msr = tuple[int, int]
"""``(index, value)``."""

MSRS_AT_ONCE = 255
"""One less than KVM's MAX_IO_MSRS: it refuses as many as that with E2BIG."""

MSR_IA32_TSC = 0x10
MSR_IA32_SYSENTER_CS = 0x174
MSR_IA32_SYSENTER_ESP = 0x175
MSR_IA32_SYSENTER_EIP = 0x176
MSR_IA32_MISC_ENABLE = 0x1A0
MSR_MTRR_DEF_TYPE = 0x2FF
MSR_IA32_TSC_DEADLINE = 0x6E0
MSR_STAR = 0xC000_0081
MSR_LSTAR = 0xC000_0082
MSR_CSTAR = 0xC000_0083
MSR_SYSCALL_MASK = 0xC000_0084
MSR_KERNEL_GS_BASE = 0xC000_0102

MISC_ENABLE_FAST_STRING = 1
MTRR_ENABLE = 1 << 11
MTRR_WRITE_BACK = 6

BOOT_MSRS: tuple[Msr, ...] = (
    (MSR_IA32_TSC, 0),
    (MSR_IA32_SYSENTER_CS, 0),
    (MSR_IA32_SYSENTER_ESP, 0),
    (MSR_IA32_SYSENTER_EIP, 0),
    (MSR_STAR, 0),
    (MSR_CSTAR, 0),
    (MSR_KERNEL_GS_BASE, 0),
    (MSR_SYSCALL_MASK, 0),
    (MSR_LSTAR, 0),
    (MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
    (MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
)

_HEAD = struct.Struct("<I4x")
_ENTRY = struct.Struct("<I4xQ")


def in_setting_order(msrs: Iterable[Msr]) -> tuple[Msr, ...]:
    """TSC first, TSC_DEADLINE last, the rest by index.

    A deadline set before the TSC it counts on fires at once or never: guests
    of Firecracker before 1.8 stopped waking after a restore.
    """
    place = {MSR_IA32_TSC: -1, MSR_IA32_TSC_DEADLINE: 1}
    return tuple(sorted(msrs, key=lambda msr: (place.get(msr[0], 0), msr[0])))


def chunks(msrs: tuple[Msr, ...]) -> Iterator[tuple[Msr, ...]]:
    """Runs of at most 255, which is what one ioctl takes."""
    for start in range(0, len(msrs), MSRS_AT_ONCE):
        yield msrs[start : start + MSRS_AT_ONCE]


def pack_msrs(msrs: tuple[Msr, ...]) -> bytes:
    """``struct kvm_msrs`` of one chunk. ValueError if a value does not fit."""
    whole = struct.Struct("<I4x" + "I4xQ" * len(msrs))
    try:
        return whole.pack(len(msrs), *chain(*msrs))
    except struct.error:
        for msr in msrs:
            layout.pack_values(_ENTRY, msr, "Msr")  # says which
        raise


def pack_chunks(msrs: tuple[Msr, ...]) -> tuple[tuple[tuple[Msr, ...], bytes], ...]:
    """The chunks, each with its ``struct kvm_msrs``. ValueError as there."""
    return tuple((chunk, pack_msrs(chunk)) for chunk in chunks(msrs))


def unpack_msrs(raw: bytes) -> tuple[Msr, ...]:
    """The entries of ``struct kvm_msrs``. ValueError if the count does not fit."""
    count = int.from_bytes(raw[:4], "little")
    layout.check_size(raw, _HEAD.size + count * _ENTRY.size, "kvm_msrs")
    return tuple(_ENTRY.iter_unpack(raw[_HEAD.size :]))
