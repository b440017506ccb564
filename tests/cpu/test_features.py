"""Features by name: what is missing, what lies elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cpu.cpuid import CpuidEntry, CpuidTable
from vmmd.cpu.features import WORDS, Word, missing, moved_states

U32 = st.integers(0, 0xFFFF_FFFF)
TABLES = st.lists(U32, min_size=len(WORDS), max_size=len(WORDS))


def table(values: list[int]) -> CpuidTable:
    """A table with these values of WORDS."""
    made = CpuidTable(())
    for word, value in zip(WORDS, values, strict=True):
        leaf = made.get(word.function, word.index)
        registers = {
            name: getattr(leaf, name, 0) for name in ("eax", "ebx", "ecx", "edx")
        }
        registers[word.register] = value
        made.put(CpuidEntry(function=word.function, index=word.index, **registers))
    return made


def only(word: Word, bit: int) -> CpuidTable:
    return table([1 << bit if each is word else 0 for each in WORDS])


def word(function: int, register: str) -> Word:
    return next(
        w for w in WORDS if (w.function, w.index, w.register) == (function, 0, register)
    )


NOTHING = table([0] * len(WORDS))


@given(TABLES)
def test_a_host_has_what_it_has(values: list[int]) -> None:
    assert missing(table(values), table(values)) == ()
    assert missing(NOTHING, table(values)) == ()


@given(TABLES, TABLES)
def test_what_either_table_of_a_host_has_is_there(
    one: list[int], other: list[int]
) -> None:
    both = table([a | b for a, b in zip(one, other, strict=True)])
    assert missing(both, table(one), table(other)) == ()
    assert missing(table(one), table(other)) == missing(both, table(other))


@pytest.mark.parametrize("each", WORDS, ids=lambda w: f"{w.function:x}.{w.register}")
def test_every_bit_has_one_name_or_is_ignored(each: Word) -> None:
    names = [missing(only(each, bit), NOTHING) for bit in range(32)]
    for bit, found in enumerate(names):
        assert len(found) == (0 if each.ignored >> bit & 1 else 1)
    found_names = [name for found in names for name in found]
    assert len(set(found_names)) == len(found_names)


@pytest.mark.parametrize(
    ("function", "register", "bit", "name"),
    [
        (1, "edx", 0, "fpu"),
        (1, "edx", 15, "cmov"),
        (1, "edx", 26, "sse2"),
        (1, "ecx", 0, "pni"),
        (1, "ecx", 28, "avx"),
        (1, "ecx", 30, "rdrand"),
        (7, "ebx", 5, "avx2"),
        (7, "ebx", 16, "avx512f"),
        (7, "ebx", 31, "avx512vl"),
        (7, "ecx", 2, "umip"),
        (7, "ecx", 22, "rdpid"),
        (7, "ecx", 31, "pks"),
        (7, "edx", 4, "fsrm"),
        (7, "edx", 24, "amx_tile"),
        (7, "edx", 26, "spec_ctrl"),
        (7, "edx", 31, "spec_ctrl_ssbd"),
        (0xD, "eax", 9, "state of pkru"),
        (0xD, "eax", 18, "state of xtiledata"),
        (0x8000_0001, "edx", 11, "syscall"),
        (0x8000_0001, "edx", 20, "nx"),
        (0x8000_0001, "edx", 26, "pdpe1gb"),
        (0x8000_0001, "edx", 29, "lm"),
        (0x8000_0001, "ecx", 6, "sse4a"),
        (0x8000_0001, "ecx", 29, "mwaitx"),
        (0x8000_0007, "edx", 8, "nonstop_tsc"),
        (0x8000_0008, "ebx", 0, "clzero"),
        (0x8000_0008, "ebx", 24, "amd_ssbd"),
        (0x4000_0001, "eax", 5, "kvm_steal_time"),
        (0x4000_0001, "eax", 17, "kvm_migration_control"),
        (0x4000_0001, "eax", 24, "CPUID 0x40000001.0 EAX bit 24"),
    ],
)
def test_names_stand_at_their_bits(
    function: int, register: str, bit: int, name: str
) -> None:
    assert missing(only(word(function, register), bit), NOTHING) == (name,)


def states(**places: tuple[int, int]) -> CpuidTable:
    """A table whose XSAVE keeps component N at ``cN=(size, offset)``."""
    leaves = {int(name[1:]): place for name, place in places.items()}
    mask = sum(1 << number for number in leaves)
    entries = [CpuidEntry(function=0xD, index=0, eax=mask)]
    entries += [
        CpuidEntry(function=0xD, index=n, eax=size, ebx=offset)
        for n, (size, offset) in leaves.items()
    ]
    return CpuidTable(entries)


def test_states_that_lie_elsewhere_are_named() -> None:
    intel = states(c2=(256, 576), c9=(8, 2688))
    amd = states(c2=(256, 576), c9=(8, 832))
    assert moved_states(intel, amd) == ("state of pkru",)
    assert moved_states(intel, intel) == ()
    assert moved_states(states(c2=(256, 576)), amd) == ()
