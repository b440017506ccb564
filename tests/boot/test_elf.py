"""ELF kernels: what is planned of them, and what is refused in which words."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.kernels import MIB, PVH_ENTRY, BytesSource, Load, elf, pvh_elf
from vmmd.boot import layout
from vmmd.boot.elf import load
from vmmd.boot.image import BootError, Entry, FileSegment, Image

PREFIX = (
    "System configuration error: Cannot load kernel due to invalid memory"
    " configuration or invalid kernel image: Kernel Loader: "
)
ELF = f"{PREFIX}failed to load ELF kernel image: Kernel Loader: "
CODE = b"\xf4" * 16


def planned(image: bytes, mib: int = 128) -> Image:
    return load(BytesSource(image), layout.memory_regions(mib))


def refused(image: bytes, mib: int = 128) -> BootError:
    with pytest.raises(BootError) as caught:
        planned(image, mib)
    assert caught.value.hint.startswith("the kernel ")
    return caught.value


def test_each_segment_goes_to_its_physical_address() -> None:
    image = elf(Load(MIB, CODE), Load(2 * MIB, b"data", memsz=0x1000), entry=MIB + 4)
    plan = planned(image)
    assert plan.segments == (
        FileSegment(64 + 2 * 56, MIB, 16),
        FileSegment(64 + 2 * 56 + 16, 2 * MIB, 4),
    )
    assert plan.claims == ((MIB, 16), (2 * MIB, 0x1000))
    assert plan.entry == Entry("linux64", MIB + 4, 0x7000)
    assert plan.setup_header == b""
    for segment in plan.segments:
        data = image[segment.file_offset :][: segment.size]
        assert data in (CODE, b"data")


def test_a_pvh_note_names_the_entry() -> None:
    assert planned(pvh_elf()).entry == Entry("pvh", PVH_ENTRY, 0x6000)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (b"", "Unable to read elf header"),
        (b"\x7fELF\x02\x01", "Unable to read elf header"),
        (
            elf(Load(MIB, CODE), ident=b"\x7fELF\x02\x02\x01"),
            "Trying to load big-endian binary on little-endian machine",
        ),
        (elf(Load(MIB, CODE), phentsize=32), "Invalid program header size"),
        (elf(Load(MIB, CODE), entry=MIB - 1), "Invalid entry address"),
        (elf(Load(MIB, CODE))[:100], "Unable to read program header"),
        (elf(Load(MIB, CODE))[:-1], "Unable to read kernel image"),
        (elf(Load(MIB, CODE), notes=b"x" * 40)[:-1], "Unable to read note header"),
        (elf(Load(MIB - 1, CODE)), "Invalid Program Header Address"),
        (elf(Load(128 * MIB - 8, CODE)), "Unable to read kernel image"),
        (elf(), "Unable to read kernel image"),
    ],
)
def test_refusals_in_the_words_of_linux_loader(image: bytes, text: str) -> None:
    assert str(refused(image)) == ELF + text


def test_a_program_header_offset_inside_the_header() -> None:
    image = bytearray(elf(Load(MIB, CODE)))
    struct.pack_into("<Q", image, 32, 63)
    assert str(refused(bytes(image))) == f"{ELF}Invalid program header offset"


def pointing_nowhere(at: int, image: bytes) -> bytes:
    """``image`` with an offset that no file has in its word ``at``."""
    return image[:at] + (1 << 62).to_bytes(8, "little") + image[at + 8 :]


@pytest.mark.parametrize(
    ("at", "what"),
    [(32, "program header"), (64 + 8, "kernel start"), (64 + 56 + 8, "note header")],
)
def test_offsets_that_no_file_has(at: int, what: str) -> None:
    image = elf(Load(MIB, CODE), notes=b"x" * 40)
    error = refused(pointing_nowhere(at, image))
    assert str(error) == f"{ELF}Unable to seek to {what}"
    variant = "".join(word.capitalize() for word in what.split())
    assert error.debug == f"ConfigureSystem(KernelLoader(Elf(Seek{variant})))"


def test_the_first_header_at_fault_is_told_of() -> None:
    image = elf(Load(MIB, CODE), notes=b"x" * 40)
    both = pointing_nowhere(64 + 56 + 8, pointing_nowhere(64 + 8, image))
    assert str(refused(both)) == f"{ELF}Unable to seek to kernel start"
    swapped = both[:64] + both[64 + 56 : 64 + 112] + both[64 : 64 + 56] + both[176:]
    assert str(refused(swapped)) == f"{ELF}Unable to seek to note header"


def test_bss_must_fit_too() -> None:
    error = refused(elf(Load(MIB, CODE, memsz=300 * MIB)))
    assert str(error) == (
        f"{PREFIX}memory to load kernel image is not enough:"
        " it needs memory up to 301 MiB, mem_size_mib is 128"
    )
    assert error.hint == (
        "the kernel needs memory up to 301 MiB, mem_size_mib is 128: raise mem_size_mib"
    )


def test_a_segment_without_bytes_is_not_loaded() -> None:
    plan = planned(elf(Load(0, b"", memsz=4096), Load(MIB, CODE)))
    assert [segment.gpa for segment in plan.segments] == [MIB]


def test_no_segment_spans_the_gap() -> None:
    refused(elf(Load(3 * 1024 * MIB - 8, CODE)), 6144)
    planned(elf(Load(4 * 1024 * MIB, CODE)), 6144)


@pytest.mark.parametrize(("machine", "name"), [(183, "arm64"), (243, "RISC-V")])
def test_another_machine_s_kernel(machine: int, name: str) -> None:
    error = refused(elf(Load(MIB, CODE), machine=machine))
    assert str(error) == (
        f"{PREFIX}the ELF kernel is for {name}, this machine is x86_64"
    )


def test_every_truncation_is_refused() -> None:
    image = pvh_elf()
    for length in range(len(image)):
        refused(image[:length])


@given(st.data())
def test_damaged_headers_give_a_plan_in_memory_or_a_refusal(
    data: st.DataObject,
) -> None:
    image = bytearray(pvh_elf())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 64 + 2 * 56 + 80))
        size = data.draw(st.sampled_from((1, 2, 4, 8)))
        value = data.draw(st.integers(0, (1 << 8 * size) - 1))
        image[at : at + size] = value.to_bytes(size, "little")
    try:
        plan = planned(bytes(image))
    except BootError:
        return
    for segment in plan.segments:
        assert segment.file_offset + segment.size <= len(image)
        assert MIB <= segment.gpa <= segment.gpa + segment.size <= 128 * MIB
