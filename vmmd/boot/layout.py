"""Where everything lies in a guest: memory, registers, ports, interrupts.

x86_64, the layout of Firecracker since 1.13. Every address that two parts of
vmmd must agree on is named here and nowhere else.
"""

from __future__ import annotations

from vmmd.errors import ConfigError
from vmmd.frozen import dataclass

PAGE_SIZE = 4096
MIB = 1 << 20
GIB = 1 << 30

# Low memory, in ascending order. MEMMAP and ZERO_PAGE share an address: a
# guest is entered either by PVH or by the 64-bit protocol.
BOOT_GDT = 0x500
BOOT_IDT = 0x520
PVH_START_INFO = 0x6000
PVH_MODLIST = 0x6040
PVH_MEMMAP = 0x7000
ZERO_PAGE = 0x7000
BOOT_STACK = 0x8FF0
PML4 = 0x9000
PDPTE = 0xA000
PDE = 0xB000
CMDLINE = 0x20000
CMDLINE_MAX_SIZE = 2048  # bytes, the final NUL among them

# What the tables must stay in: from where a PC has its EBDA up to the RSDP.
# The MP table comes first, since kernels look for it at the start of an EBDA.
SYSTEM_MEM_START = 0x9FC00
RSDP = 0xE0000
SYSTEM_MEM_SIZE = RSDP - SYSTEM_MEM_START
# From the top of the same area down: VMGenID's bytes and VMClock's page.
VMGENID = RSDP - 16
VMCLOCK_SIZE = PAGE_SIZE
VMCLOCK = RSDP - 2 * PAGE_SIZE
HIMEM_START = 1 * MIB  # no part of a kernel lies below

# The gaps in memory, and what answers in them.
MMIO32_START = 3 * GIB
MMIO32_SIZE = 1 * GIB
FIRST_PAST_32BITS = 4 * GIB
MMIO64_START = 256 * GIB
MMIO64_SIZE = 256 * GIB
FIRST_PAST_64BIT_MMIO = MMIO64_START + MMIO64_SIZE

MMIO_SLOT_SIZE = 0x1000
BOOT_TIMER = MMIO32_START
VIRTIO_MMIO_START = BOOT_TIMER + MMIO_SLOT_SIZE
PCI_MMCONFIG_START = 0xEEC0_0000
PCI_MMCONFIG_SIZE = 256 * MIB
IOAPIC = 0xFEC0_0000
LOCAL_APIC = 0xFEE0_0000
# KVM keeps three pages of TSS and one of identity map for guests in real mode.
KVM_IDENTITY_MAP = 0xFFFB_C000
KVM_TSS = 0xFFFB_D000

# Ports.
COM1_PORT = 0x3F8
COM1_PORTS = 8
I8042_DATA_PORT = 0x60
I8042_COMMAND_PORT = 0x64
I8042_PORTS = 5
I8042_RESET = 0xFE  # written to the command port: reset the machine
# ACPI's sleep registers, one byte each. Linux enters S5 by a write to the
# control register, and only if the status register exists too.
SLEEP_CONTROL_PORT = 0x600
SLEEP_STATUS_PORT = 0x601
S5_SLEEP_TYPE = 5  # _S5's SLP_TYP, bits 2..4 of the control register
SLEEP_ENABLE = 0x20  # SLP_EN in the control register

# Global system interrupts, each wired to the IOAPIC pin of its number.
KEYBOARD_GSI = 1
COM1_GSI = 4
GSI_FIRST = 5
GSI_LAST = 23
# VMGenID and VMClock have the two after the virtio devices'.
VIRTIO_MMIO_MAX = GSI_LAST - GSI_FIRST + 1 - 2

_NO_GSI = "The requested resource is not available."
_TOO_MANY = {
    VIRTIO_MMIO_MAX + 1: "Error while registering ACPI with KVM: VMClock: "
    f"Could not allocate GSI: {_NO_GSI}",
    VIRTIO_MMIO_MAX + 2: "Error while registering ACPI with KVM: VMGenID: "
    f"Could not allocate GSI: {_NO_GSI}",
}
_NO_SLOT = f"MMIO transport error: Failed to allocate requested resource: {_NO_GSI}"


@dataclass(frozen=True, slots=True)
class MmioSlot:
    """One virtio-mmio device's register page and interrupt."""

    base: int
    gsi: int


def memory_regions(mem_size_mib: int) -> tuple[tuple[int, int], ...]:
    """``(gpa, size in bytes)`` of the guest's memory, in ascending order.

    One region up to 3 GiB, a second from 4 GiB, a third from 512 GiB.
    ``mem_size_mib`` is at least 1.
    """
    left, regions = mem_size_mib * MIB, []
    for start, end in (
        (0, MMIO32_START),
        (FIRST_PAST_32BITS, MMIO64_START),
        (FIRST_PAST_64BIT_MMIO, 1 << 64),
    ):
        size = min(left, end - start)
        if size:
            regions.append((start, size))
        left -= size
    return tuple(regions)


def virtio_slots(count: int) -> tuple[MmioSlot, ...]:
    """The slots of ``count`` virtio-mmio devices, in attach order.

    ConfigError if there are more devices than interrupts.
    """
    if count > VIRTIO_MMIO_MAX:
        reason = _TOO_MANY.get(count, _NO_SLOT)
        raise ConfigError(f"Could not attach device: {reason}")
    return tuple(
        MmioSlot(VIRTIO_MMIO_START + i * MMIO_SLOT_SIZE, GSI_FIRST + i)
        for i in range(count)
    )


def acpi_gsis(count: int) -> tuple[int, int]:
    """The interrupts of VMGenID and VMClock behind ``count`` virtio devices."""
    return (GSI_FIRST + count, GSI_FIRST + count + 1)
