"""An echo device behind the transport, cold or with its driver up."""

from __future__ import annotations

from tests.helpers.driver import Buffer, RingLayout, guest_memory
from tests.helpers.echo import EchoDevice, EchoState
from tests.helpers.mmio_guest import Guest
from vmmd.virtio.mmio import MmioTransport

LAYOUTS = [RingLayout.at(0x1000, 8), RingLayout.at(0x2000, 4)]
OUT = Buffer(0x8000, 16)
IN = Buffer(0x9000, 512, writable=True)
BASE = 0xC000_1000


def cold() -> tuple[Guest, EchoDevice]:
    """A device after power-on."""
    device = EchoDevice(EchoState())
    return Guest(MmioTransport(device, guest_memory(), BASE)), device


def running() -> tuple[Guest, EchoDevice]:
    """A device whose driver is up."""
    guest, device = cold()
    guest.probe(LAYOUTS)
    assert active(guest)
    return guest, device


def active(guest: Guest) -> bool:
    """Whether the device serves."""
    return guest.transport.active
