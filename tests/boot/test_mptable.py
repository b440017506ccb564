"""The MP table, read as a kernel reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import layout
from vmmd.boot.mptable import mptable, size

LENGTHS = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


@given(st.integers(1, 32))
def test_all_processors_and_interrupts(cpus: int) -> None:
    (at, pointer), (table_at, table) = mptable(cpus)
    assert at == layout.SYSTEM_MEM_START
    assert at % 16 == 0
    assert pointer[:4] == b"_MP_"
    assert int.from_bytes(pointer[4:8], "little") == table_at == at + 16
    assert (pointer[8], pointer[9]) == (1, 4)
    assert sum(pointer) % 256 == sum(table) % 256 == 0
    assert table[:4] == b"PCMP"
    assert int.from_bytes(table[4:6], "little") == len(table)
    assert table[8:28] == b"FC      000000000000"
    assert int.from_bytes(table[36:40], "little") == 0xFEE0_0000
    assert size(cpus) == 284 + 20 * cpus

    entries = []
    rest = table[44:]
    while rest:
        length = LENGTHS[rest[0]]
        entries.append(rest[:length])
        rest = rest[length:]
    assert int.from_bytes(table[34:36], "little") == len(entries)
    processors = [entry for entry in entries if entry[0] == 0]
    assert [entry[1] for entry in processors] == list(range(cpus))
    assert [entry[3] for entry in processors] == [3] + [1] * (cpus - 1)
    assert all(entry[2] == 0x14 for entry in processors)
    assert [entry for entry in entries if entry[0] == 1] == [b"\1\0ISA   "]
    (ioapic,) = [entry for entry in entries if entry[0] == 2]
    assert ioapic[1:4] == bytes((cpus + 1, 0x14, 1))
    assert int.from_bytes(ioapic[4:], "little") == 0xFEC0_0000
    interrupts = [entry for entry in entries if entry[0] == 3]
    assert interrupts == [
        bytes((3, 0, 0, 0, 0, irq, cpus + 1, irq)) for irq in range(24)
    ]
    assert [entry for entry in entries if entry[0] == 4] == [
        bytes((4, 3, 0, 0, 0, 0, 0, 0)),
        bytes((4, 1, 0, 0, 0, 0, 0xFF, 1)),
    ]
