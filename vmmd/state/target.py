"""What ``version`` of ``PUT /snapshot/create`` asks for, and what rules it out.

Checks before anything is saved, in the order and with the texts of Firecracker's
1.5: is there such a release, do the devices fit its interrupt lines, does a
driver use what it did not have. The version's syntax is judged with the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.errors import ConfigError
from vmmd.frozen import dataclass
from vmmd.state.record import NOTIFICATION_SUPPRESSION
from vmmd.state.versions import CURRENT, data_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vmmd.state.codec import Entry

UNKNOWN_VERSION = "Cannot translate microVM version to snapshot data version"
_EVENT_IDX = 1 << 29  # VIRTIO_RING_F_EVENT_IDX
_MAX_DEVICES_0_23 = 11
_V0_23, _V1_0, _V1_1 = 1, 4, 5


@dataclass(frozen=True, slots=True)
class TargetDevice:
    """A virtio device: its kind, and the features that its driver took."""

    kind: str
    driver_features: int


@dataclass(frozen=True, slots=True)
class Target:
    """The release to save for. ``given``: whether the request named one."""

    release: str
    given: bool


def check_target(version: str | None, devices: Sequence[TargetDevice]) -> Target:
    """The release that ``version`` names; the newest for None.

    ``devices`` are the virtio devices: nothing else takes one of the interrupt
    lines that 0.23.0 has too few of. ConfigError with Firecracker's text.
    """
    if version is None:
        return Target(CURRENT, given=False)
    number = data_version(version)
    if number is None:
        raise ConfigError(UNKNOWN_VERSION)
    if number == _V0_23 and len(devices) > _MAX_DEVICES_0_23:
        raise ConfigError(
            f"Too many devices attached: {len(devices)}. The maximum number allowed"
            f" for the snapshot data version requested is {_MAX_DEVICES_0_23}."
        )
    if any(_too_new(device, number) for device in devices):
        raise ConfigError(NOTIFICATION_SUPPRESSION)
    return Target(version, given=True)


def devices_in(entries: Iterable[Entry]) -> list[TargetDevice]:
    """The virtio devices of a state file, by their transports' records."""
    return [
        TargetDevice(entry.id.partition("/")[0], entry.fields["driver_features"])
        for entry in entries
        if entry.kind == "mmio"
    ]


def _too_new(device: TargetDevice, number: int) -> bool:
    """Whether it suppresses notifications: all can from 1.0 on, net from 1.1."""
    first = _V1_1 if device.kind == "net" else _V1_0
    return number < first and bool(device.driver_features & _EVENT_IDX)
