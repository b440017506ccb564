"""Damage or a fault of the writer: the checksum tells them apart."""

from __future__ import annotations

import pytest

from vmmd.errors import SnapshotError
from vmmd.state.crc32c import crc32c
from vmmd.state.damage import BrokenError, UnreadableFileError, is_intact, judged

BODY = b"any bytes"
INTACT = BODY + crc32c(BODY).to_bytes(4, "little")
DAMAGED = b"some" + INTACT[4:]


@pytest.mark.parametrize(
    ("data", "fault", "kind", "text", "debug"),
    [
        (INTACT, SnapshotError("x"), SnapshotError, "x", ""),
        (INTACT, BrokenError("x"), BrokenError, "x", ""),
        (
            DAMAGED,
            SnapshotError("x"),
            SnapshotError,
            "CRC64 validation failed",
            "Crc64",
        ),
        (
            DAMAGED,
            BrokenError("x"),
            UnreadableFileError,
            "the file is damaged: x",
            'Bitcode(Error("bitcode error"))',
        ),
    ],
)
def test_a_fault_is_judged_by_the_checksum(
    data: bytes, fault: SnapshotError, kind: type, text: str, debug: str
) -> None:
    assert is_intact(data) is (data is INTACT)
    with pytest.raises(SnapshotError) as caught, judged(data):
        raise fault
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.debug) == (text, debug)


def test_what_is_read_is_not_judged() -> None:
    with judged(DAMAGED):
        pass
