"""Checks of the smaller devices: balloon, pmem, memory hotplug."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fault import ResourceFault, RustError

if TYPE_CHECKING:
    from vmmd.config import BalloonConfig, MemoryHotplugConfig, PmemConfig

MIN_HOTPLUG_BLOCK_MIB = 2
MIN_HOTPLUG_SLOT_MIB = 128

_TOO_LARGE = RustError(
    "Amount of pages requested is too large.", "TooManyPagesRequested"
)
_PMEM_BESIDE_DRIVE = RustError(
    "Attempt to add pmem as a root device while the root device defined as a block"
    " device",
    "AddingSecondRootDevice",
)
_SECOND_ROOT_PMEM = RustError(
    "A root pmem device already exist", "RootPmemDeviceAlreadyExist"
)


def check_balloon(config: BalloonConfig, mem_size_mib: int) -> BalloonConfig:
    """The balloon, or ResourceFault if it is larger than the memory."""
    if config.amount_mib > mem_size_mib:
        raise ResourceFault("balloon", _TOO_LARGE)
    return config


def has_root_pmem(pmem: tuple[PmemConfig, ...]) -> bool:
    """Whether a pmem device holds the root file system."""
    return any(device.root_device for device in pmem)


def insert_pmem(
    pmem: tuple[PmemConfig, ...], config: PmemConfig, root_drive: bool
) -> tuple[PmemConfig, ...]:
    """The pmem devices with one more, or the one of that id replaced in place."""
    if config.root_device and root_drive:
        raise ResourceFault("pmem", _PMEM_BESIDE_DRIVE)
    ids = [device.id for device in pmem]
    place = ids.index(config.id) if config.id in ids else len(ids)
    was_root = place < len(ids) and pmem[place].root_device
    if config.root_device and has_root_pmem(pmem) and not was_root:
        raise ResourceFault("pmem", _SECOND_ROOT_PMEM)
    return (*pmem[:place], config, *pmem[place + 1 :])


def check_memory_hotplug(config: MemoryHotplugConfig) -> MemoryHotplugConfig:
    """The hotplug region, or ResourceFault of the first size that is wrong."""
    fault = _block_fault(config.block_size_mib) or _slot_fault(config)
    if fault is not None:
        raise ResourceFault("hotplug", fault)
    return config


def _block_fault(block_mib: int) -> RustError | None:
    if block_mib < MIN_HOTPLUG_BLOCK_MIB:
        text = f"Block size must not be lower than {MIN_HOTPLUG_BLOCK_MIB} MiB"
        return RustError(text, f"BlockSizeTooSmall({MIN_HOTPLUG_BLOCK_MIB})")
    if block_mib & (block_mib - 1):
        text = "Block size must be a power of 2"
        return RustError(text, "BlockSizeNotPowerOfTwo")
    return None


def _slot_fault(config: MemoryHotplugConfig) -> RustError | None:
    block, slot = config.block_size_mib, config.slot_size_mib
    if slot < MIN_HOTPLUG_SLOT_MIB:
        text = f"Slot size must not be lower than {MIN_HOTPLUG_SLOT_MIB} MiB"
        return RustError(text, f"SlotSizeTooSmall({MIN_HOTPLUG_SLOT_MIB})")
    if slot % block:
        text = f"Slot size must be a multiple of block size ({block} MiB)"
        return RustError(text, f"SlotSizeNotMultipleOfBlockSize({block})")
    if config.total_size_mib < slot:
        text = f"Total size must not be lower than slot size ({slot} MiB)"
        return RustError(text, f"TotalSizeTooSmall({slot})")
    if config.total_size_mib % slot:
        text = f"Total size must be a multiple of slot size ({slot} MiB)"
        return RustError(text, f"TotalSizeNotMultipleOfSlotSize({slot})")
    return None
