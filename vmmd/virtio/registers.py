"""The registers of virtio-mmio: offsets, who answers them, the status ladder."""

from __future__ import annotations

from vmmd.bus import PAGE_SIZE, Access, Rule
from vmmd.virtio.device import Status

MAGIC = 0x74726976
VERSION = 2

MAGIC_VALUE, DEVICE_VERSION, DEVICE_TYPE, VENDOR_ID = 0x00, 0x04, 0x08, 0x0C
DEVICE_FEATURES, DEVICE_FEATURES_SEL = 0x10, 0x14
DRIVER_FEATURES, DRIVER_FEATURES_SEL = 0x20, 0x24
QUEUE_SEL, QUEUE_NUM_MAX, QUEUE_NUM, QUEUE_READY = 0x30, 0x34, 0x38, 0x44
QUEUE_NOTIFY, INTERRUPT_STATUS, INTERRUPT_ACK, STATUS = 0x50, 0x60, 0x64, 0x70
QUEUE_DESC, QUEUE_AVAIL, QUEUE_USED = 0x80, 0x90, 0xA0
CONFIG_GENERATION, CONFIG = 0xFC, 0x100

READABLE = (
    MAGIC_VALUE,
    DEVICE_VERSION,
    DEVICE_TYPE,
    VENDOR_ID,
    DEVICE_FEATURES,
    QUEUE_NUM_MAX,
    QUEUE_READY,
    INTERRUPT_STATUS,
    STATUS,
    CONFIG_GENERATION,
)
CONFIG_SIZES = (1, 2, 4, 8)
U32 = 0xFFFF_FFFF


def _shadow(offset: int) -> Rule:
    return Rule(offset, 4, write=False, access=Access.SHADOW)


# While the configuration changes, its generation is read from the loop, which
# answers when the change is complete.
RULES_UPDATING = (
    _shadow(INTERRUPT_STATUS),
    Rule(INTERRUPT_ACK, 4, write=True, access=Access.W1C, target=INTERRUPT_STATUS),
    *(_shadow(o) for o in READABLE if o not in (INTERRUPT_STATUS, CONFIG_GENERATION)),
    *(
        Rule(CONFIG, size, write=False, access=Access.SHADOW, length=PAGE_SIZE - CONFIG)
        for size in CONFIG_SIZES
    ),
)
RULES = (*RULES_UPDATING, _shadow(CONFIG_GENERATION))

ACKNOWLEDGED = Status.ACKNOWLEDGE
DRIVEN = ACKNOWLEDGED | Status.DRIVER
AGREED = DRIVEN | Status.FEATURES_OK
RUNNING = AGREED | Status.DRIVER_OK

# The ladder: from which status a driver may go to which. Besides, it may write
# 0 (reset) and add FAILED at any time.
LADDER = {
    Status.INIT: ACKNOWLEDGED,
    ACKNOWLEDGED: DRIVEN,
    DRIVEN: AGREED,
    AGREED: RUNNING,
}

# Where a status register can be: NEEDS_RESET and FAILED come on top of a rung.
STATUSES = frozenset(
    int(rung | extra)
    for rung in (Status.INIT, *LADDER.values())
    for extra in (
        Status.INIT,
        Status.NEEDS_RESET,
        Status.FAILED,
        Status.NEEDS_RESET | Status.FAILED,
    )
)
