"""The layout: memory around the gaps, slots and interrupts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot import layout
from vmmd.errors import ConfigError

GIB = 1 << 30


@pytest.mark.parametrize(
    ("mib", "regions"),
    [
        (1, ((0, 1 << 20),)),
        (128, ((0, 128 << 20),)),
        (3072, ((0, 3 * GIB),)),
        (3073, ((0, 3 * GIB), (4 * GIB, 1 << 20))),
        (3584, ((0, 3 * GIB), (4 * GIB, GIB // 2))),
        (6144, ((0, 3 * GIB), (4 * GIB, 3 * GIB))),
        (255 << 10, ((0, 3 * GIB), (4 * GIB, 252 * GIB))),
        (256 << 10, ((0, 3 * GIB), (4 * GIB, 252 * GIB), (512 * GIB, GIB))),
    ],
)
def test_memory_regions(mib: int, regions: tuple[tuple[int, int], ...]) -> None:
    assert layout.memory_regions(mib) == regions


@given(st.integers(1, 1 << 24))
def test_memory_regions_hold_all_and_leave_the_gaps(mib: int) -> None:
    regions = layout.memory_regions(mib)
    assert sum(size for _, size in regions) == mib << 20
    for gpa, size in regions:
        for gap, length in (
            (layout.MMIO32_START, layout.MMIO32_SIZE),
            (layout.MMIO64_START, layout.MMIO64_SIZE),
        ):
            assert gpa + size <= gap or gap + length <= gpa


def test_slots_follow_the_boot_timer_and_interrupts_start_at_5() -> None:
    slots = layout.virtio_slots(17)
    assert [slot.base for slot in slots[:2]] == [0xC000_1000, 0xC000_2000]
    assert [slot.gsi for slot in slots] == list(range(5, 22))
    assert slots[-1].base + layout.MMIO_SLOT_SIZE <= layout.PCI_MMCONFIG_START
    assert layout.virtio_slots(0) == ()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (
            18,
            "Could not attach device: Error while registering ACPI with KVM: VMClock:"
            " Could not allocate GSI: The requested resource is not available.",
        ),
        (
            19,
            "Could not attach device: Error while registering ACPI with KVM: VMGenID:"
            " Could not allocate GSI: The requested resource is not available.",
        ),
        (
            20,
            "Could not attach device: MMIO transport error: Failed to allocate"
            " requested resource: The requested resource is not available.",
        ),
        (
            100,
            "Could not attach device: MMIO transport error: Failed to allocate"
            " requested resource: The requested resource is not available.",
        ),
    ],
)
def test_too_many_devices(count: int, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        layout.virtio_slots(count)
    assert str(caught.value) == text


def test_vmgenid_and_vmclock_have_the_interrupts_behind_the_devices() -> None:
    assert layout.acpi_gsis(0) == (5, 6)
    assert layout.acpi_gsis(layout.VIRTIO_MMIO_MAX) == (22, layout.GSI_LAST)
