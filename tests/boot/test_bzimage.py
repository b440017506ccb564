"""bzImages: placed as their header says, refused if it makes no sense."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.kernels import MIB, BytesSource, BzImage
from vmmd.boot import layout
from vmmd.boot.bzimage import load
from vmmd.boot.image import BootError, Entry, FileSegment, Image

PREFIX = (
    "System configuration error: Cannot load kernel due to invalid memory"
    " configuration or invalid kernel image: Kernel Loader: "
)
BZ = f"{PREFIX}failed to load bzImage kernel image: Kernel Loader: "
GOOD = BzImage()

bzimages = st.builds(
    BzImage,
    setup_sects=st.integers(0, 255),
    syssize=st.integers(0, 0x200),
    jump=st.integers(0, 255),
    version=st.integers(0x1FF, 0x20F),
    loadflags=st.integers(0, 255),
    code32_start=st.integers(0, (1 << 32) - 1),
    initrd_addr_max=st.integers(0, (1 << 32) - 1),
    kernel_alignment=st.integers(0, (1 << 32) - 1),
    relocatable_kernel=st.integers(0, 1),
    xloadflags=st.integers(0, 0xFFFF),
    pref_address=st.integers(0, (1 << 64) - 1),
    init_size=st.integers(0, (1 << 32) - 1),
    payload=st.integers(0, 0x2000),
)


def planned(image: BzImage, mib: int = 128) -> Image:
    return load(BytesSource(image.build()), layout.memory_regions(mib))


def refused(data: bytes, mib: int = 128) -> BootError:
    with pytest.raises(BootError) as caught:
        load(BytesSource(data), layout.memory_regions(mib))
    return caught.value


def test_the_protected_mode_part_goes_to_1_mib() -> None:
    plan = planned(GOOD)
    assert plan.segments == (FileSegment(5 * 512, MIB, 0x1000),)
    assert plan.entry == Entry("linux64", MIB + 0x200, 0x7000)
    assert plan.claims == ((MIB, 0x1000), (16 * MIB, 32 * MIB))
    assert plan.initrd_max == 0x7FFF_FFFF
    assert plan.setup_header == GOOD.build()[0x1F1 : 0x202 + 0x66]


@pytest.mark.parametrize(
    ("image", "run"),
    [
        (GOOD, 16 * MIB),
        (replace(GOOD, pref_address=0), 2 * MIB),
        (replace(GOOD, relocatable_kernel=0, pref_address=3 * MIB), 3 * MIB),
        (replace(GOOD, code32_start=18 * MIB + 1), 20 * MIB),
    ],
)
def test_room_is_kept_where_it_unpacks_itself(image: BzImage, run: int) -> None:
    assert planned(image).claims[1] == (run, 32 * MIB)


def test_no_setup_sects_means_four() -> None:
    assert planned(replace(GOOD, setup_sects=0)).segments[0].file_offset == 5 * 512


def test_a_header_is_kept_at_least_up_to_init_size() -> None:
    assert len(planned(replace(GOOD, jump=0)).setup_header) == 0x268 - 0x1F1
    assert len(planned(replace(GOOD, jump=255)).setup_header) == 0x290 - 0x1F1


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (replace(GOOD, version=0x1FF), f"{BZ}Invalid bzImage: it is a zImage"),
        (replace(GOOD, loadflags=0), f"{BZ}Invalid bzImage: it is a zImage"),
        (
            replace(GOOD, kernel_alignment=0),
            f"{BZ}Invalid bzImage: it has a damaged header",
        ),
        (replace(GOOD, init_size=0), f"{BZ}Invalid bzImage: it has a damaged header"),
        (
            replace(GOOD, version=0x20B),
            "System configuration error: bzImage does not provide a 64-bit entry point",
        ),
        (
            replace(GOOD, xloadflags=0x7E),
            "System configuration error: bzImage does not provide a 64-bit entry point",
        ),
        (
            replace(GOOD, code32_start=MIB - 1),
            f"{PREFIX}invalid kernel start address",
        ),
        (
            replace(GOOD, payload=0xFFF),
            f"{BZ}Unable to read bzImage compressed kernel: it is cut short at",
        ),
        (
            replace(GOOD, init_size=113 * MIB),
            f"{PREFIX}memory to load kernel image is not enough",
        ),
    ],
)
def test_refusals(image: BzImage, text: str) -> None:
    assert str(refused(image.build())).startswith(text)


def test_too_little_memory_says_how_much_it_takes() -> None:
    assert refused(GOOD.build(), 32).hint == (
        "the kernel needs memory up to 48 MiB, mem_size_mib is 32: raise mem_size_mib"
    )
    planned(GOOD, 48)


def test_it_unpacks_itself_below_the_gap() -> None:
    high = replace(GOOD, pref_address=4096 * MIB)
    assert "memory up to 4128 MiB" in str(refused(high.build(), 6144))


def test_every_truncation_is_refused() -> None:
    data = GOOD.build()
    for length in range(len(data)):
        refused(data[:length])


@given(bzimages, st.integers(1, 8192))
def test_any_header_gives_a_plan_in_low_memory_or_a_refusal(
    image: BzImage, mib: int
) -> None:
    try:
        plan = planned(image, mib)
    except BootError:
        return
    low = min(mib, 3072) * MIB
    (segment,) = plan.segments
    assert segment.file_offset + segment.size == len(image.build())
    for gpa, size in ((segment.gpa, segment.size), *plan.claims):
        assert gpa + size <= low
    assert segment.gpa >= MIB
    assert 0x268 - 0x1F1 <= len(plan.setup_header) <= 0x290 - 0x1F1
