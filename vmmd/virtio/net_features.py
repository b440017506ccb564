"""Feature bits of a network interface, and what they mean to its tap."""

from __future__ import annotations

import enum

from vmmd.virtio.device import RING_EVENT_IDX, VERSION_1


class Feature(enum.IntFlag):
    """Feature bits (virtio 1.2, 5.1.3)."""

    CSUM = 1 << 0
    GUEST_CSUM = 1 << 1
    MTU = 1 << 3
    MAC = 1 << 5
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_UFO = 1 << 10
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_UFO = 1 << 14
    MRG_RXBUF = 1 << 15


class Offload(enum.IntFlag):
    """What the tap may leave to its reader (linux/if_tun.h, TUN_F_*)."""

    CSUM = 1
    TSO4 = 2
    TSO6 = 4
    UFO = 16


OFFERED = (
    VERSION_1
    | RING_EVENT_IDX
    | Feature.CSUM
    | Feature.GUEST_CSUM
    | Feature.GUEST_TSO4
    | Feature.GUEST_TSO6
    | Feature.GUEST_UFO
    | Feature.HOST_TSO4
    | Feature.HOST_TSO6
    | Feature.HOST_UFO
    | Feature.MRG_RXBUF
)
_SEGMENTS = {
    Feature.GUEST_TSO4: Offload.TSO4,
    Feature.GUEST_TSO6: Offload.TSO6,
    Feature.GUEST_UFO: Offload.UFO,
}
LARGE_FRAMES = Feature.GUEST_TSO4 | Feature.GUEST_TSO6 | Feature.GUEST_UFO
"""Drivers that took one of these are given frames above the MTU."""


def offloads(features: int) -> Offload:
    """What a tap may leave to a driver that took ``features``.

    The tap takes none of the others without CSUM.
    """
    if not features & Feature.GUEST_CSUM:
        return Offload(0)
    taken = (tap for guest, tap in _SEGMENTS.items() if features & guest)
    return sum(taken, start=Offload.CSUM)
