"""Ends read off run pages."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.exits import (
    RUN_HEAD_BYTES,
    EndReason,
    ExitNote,
    ExitReason,
    InternalError,
    SystemEvent,
    VmEnd,
    decode_end,
)


def run_page(reason: int, union: bytes = b"") -> bytes:
    """The head of a kvm_run that exited for ``reason``."""
    head = struct.pack("<8xI20x", reason)
    return (head + union).ljust(RUN_HEAD_BYTES, b"\0")


def test_triple_fault() -> None:
    end = decode_end(run_page(ExitReason.SHUTDOWN), 3, 0)
    assert end == VmEnd(EndReason.TRIPLE_FAULT, vcpu=3)
    assert end.exit_code == 1
    assert not end.needs_report
    assert str(end) == "triple fault of vCPU 3"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (SystemEvent.SHUTDOWN, 0),
        (SystemEvent.RESET, 0),
        (SystemEvent.CRASH, 1),
        (SystemEvent.SUSPEND, 1),
        (77, 1),
    ],
)
def test_system_event(event: int, code: int) -> None:
    union = struct.pack("<IIQ", event, 1, 9)
    end = decode_end(run_page(ExitReason.SYSTEM_EVENT, union), 0, 0)
    assert end == VmEnd(EndReason.SYSTEM_EVENT, detail=event, data=(9,))
    assert end.exit_code == code


def test_internal_error_carries_suberror_and_data() -> None:
    union = struct.pack("<II2Q", InternalError.EMULATION, 2, 0x0F, 0xCC)
    end = decode_end(run_page(ExitReason.INTERNAL_ERROR, union), 1, 0)
    assert end == VmEnd(EndReason.INTERNAL_ERROR, 1, 1, (0x0F, 0xCC))
    assert end.exit_code == 1
    assert end.needs_report
    assert str(end) == "KVM internal error of vCPU 1: EMULATION (data 0xf, 0xcc)"


def test_fail_entry() -> None:
    union = struct.pack("<QI", 0x80000021, 5)
    end = decode_end(run_page(ExitReason.FAIL_ENTRY, union), 0, 0)
    assert end == VmEnd(EndReason.FAIL_ENTRY, 0, 0x80000021, (5,))
    assert end.needs_report
    assert "0x80000021" in str(end)


def test_unknown_exits_are_named() -> None:
    union = struct.pack("<Q", 0x31)
    end = decode_end(run_page(ExitReason.UNKNOWN, union), 0, 0)
    assert end == VmEnd(EndReason.UNKNOWN_EXIT, 0, 0, (0x31,))
    assert str(decode_end(run_page(ExitReason.HLT), 0, 0)).endswith(": HLT")
    assert str(decode_end(run_page(999), 0, 0)).endswith(": 999")


def test_a_failed_run_comes_before_what_the_page_says() -> None:
    end = decode_end(run_page(ExitReason.SHUTDOWN), 2, errno.EFAULT)
    assert end == VmEnd(EndReason.RUN_FAILED, 2, errno.EFAULT)
    assert str(end) == "KVM_RUN failed of vCPU 2: EFAULT"
    assert end.exit_code == 1


@pytest.mark.parametrize(
    "reason", [EndReason.POWER_OFF, EndReason.I8042_RESET, EndReason.ACPI_RESET]
)
def test_what_the_guest_asked_for_is_no_failure(reason: EndReason) -> None:
    assert VmEnd(reason).exit_code == 0
    assert not VmEnd(reason).needs_report


@given(st.binary(min_size=RUN_HEAD_BYTES, max_size=RUN_HEAD_BYTES), st.integers(0, 200))
def test_any_page_decodes_and_prints(page: bytes, run_errno: int) -> None:
    end = decode_end(page, 0, run_errno)
    assert str(end)
    assert end.exit_code in (0, 1)
    assert len(end.data) <= 16


@given(st.sampled_from(ExitReason), st.binary(max_size=256))
def test_every_reason_decodes(reason: ExitReason, union: bytes) -> None:
    assert str(decode_end(run_page(reason, union), 0, 0))


def test_notes_print_as_one_line() -> None:
    note = ExitNote(ExitReason.IO, 0x3F8, 1, 3, write=True, value=0x41)
    assert str(note) == "IO 0x3f8 8 bit x3 write 0x41"
    note = ExitNote(ExitReason.MMIO, 0xD0000000, 4, 1, write=False, value=0)
    assert str(note) == "MMIO 0xd0000000 32 bit read"
    assert str(ExitNote(ExitReason.HLT, 0, 0, 0, write=False, value=0)) == "HLT"
