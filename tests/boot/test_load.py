"""Which loader takes a file, what is said of the rest, and where an initrd goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.kernels import (
    MIB,
    BytesSource,
    BzImage,
    Load,
    Unreadable,
    elf,
    pvh_elf,
)
from vmmd.boot import layout
from vmmd.boot.image import BootError, Image, overlap
from vmmd.boot.load import load_kernel, place_initrd
from vmmd.errors import ConfigError

REGIONS = layout.memory_regions(128)
NOT_ELF = (
    "System configuration error: Cannot load kernel due to invalid memory"
    " configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel"
    " image: Kernel Loader: Invalid Elf magic number"
)


def planned(data: bytes) -> Image:
    return load_kernel(BytesSource(data), REGIONS)


def refused(data: bytes) -> BootError:
    with pytest.raises(BootError) as caught:
        planned(data)
    return caught.value


def test_the_kind_is_told_from_the_file() -> None:
    assert planned(BzImage().build()).setup_header
    assert planned(pvh_elf()).entry.protocol == "pvh"
    assert planned(elf(Load(MIB, b"\xf4"))).entry.protocol == "linux64"


def test_what_is_no_kernel() -> None:
    assert str(refused(b"#!/bin/sh\n" + b"x" * 100)) == NOT_ELF
    assert str(refused(b"MZ" + bytes(4000))) == NOT_ELF
    assert "Unable to read elf header" in str(refused(b"short"))


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz")],
)
def test_a_compressed_kernel_is_told_how_to_help_itself(
    magic: bytes, name: str
) -> None:
    error = refused(magic + bytes(4000))
    assert str(error) == NOT_ELF
    assert error.hint == (
        f"the kernel is compressed with {name}: unpack it first, or give a bzImage"
    )


@pytest.mark.parametrize(
    "data",
    [
        bytes(0x38) + b"ARM\x64" + bytes(4000),
        b"MZ\0\0zimg" + bytes(4000),
    ],
)
def test_an_arm64_image(data: bytes) -> None:
    assert "the kernel is an arm64 image, this machine is x86_64" in str(refused(data))


def test_a_directory() -> None:
    with pytest.raises(ConfigError, match="Unable to read elf header"):
        load_kernel(Unreadable(), REGIONS)


@given(st.binary(max_size=700))
def test_any_file_is_a_kernel_or_a_refusal(data: bytes) -> None:
    refused(data)


def test_the_initrd_ends_the_low_memory_on_a_page() -> None:
    kernel = planned(elf(Load(MIB, b"\xf4")))
    initrd = place_initrd(5000, kernel, REGIONS)
    assert (initrd.file_offset, initrd.gpa, initrd.size) == (0, 128 * MIB - 8192, 5000)
    big = layout.memory_regions(6144)
    assert place_initrd(4096, kernel, big).gpa == 3072 * MIB - 4096


def test_the_initrd_stays_where_a_bzimage_can_take_it() -> None:
    kernel = planned(BzImage(initrd_addr_max=0x37F_FFFF).build())
    assert place_initrd(1, kernel, REGIONS).gpa == 0x37F_F000


def test_the_initrd_stays_out_of_the_first_mib() -> None:
    kernel = planned(BzImage(initrd_addr_max=0x7_FFFF).build())
    with pytest.raises(BootError, match="does not fit"):
        place_initrd(1, kernel, REGIONS)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "Cannot load initrd due to an invalid memory configuration.."),
        (128 * MIB + 1, "Failed to compute the initrd address.."),
        (
            128 * MIB,
            "the initrd of 134217728 bytes does not fit above the kernel.",
        ),
        (
            80 * MIB + 1,
            "the initrd of 83886081 bytes does not fit above the kernel.",
        ),
    ],
)
def test_an_initrd_that_does_not_fit(size: int, text: str) -> None:
    with pytest.raises(BootError) as caught:
        place_initrd(size, planned(BzImage().build()), REGIONS)
    assert str(caught.value) == f"Error with initrd initialization: {text}"
    assert caught.value.hint.startswith("the initrd ")


@given(st.integers(1, 200 * MIB), st.integers(1, 8192))
def test_a_placed_initrd_is_in_memory_and_off_the_kernel(size: int, mib: int) -> None:
    regions = layout.memory_regions(mib)
    try:
        kernel = load_kernel(BytesSource(BzImage().build()), regions)
        initrd = place_initrd(size, kernel, regions)
    except BootError:
        return
    assert initrd.gpa % 4096 == 0
    assert initrd.gpa >= MIB
    assert initrd.gpa + size <= min(mib * MIB, 0x8000_0000)
    assert not overlap(initrd.gpa, size, kernel.claims)
