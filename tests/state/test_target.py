"""The version of a create: which there is, and what the devices rule out."""

from __future__ import annotations

import pytest

from vmmd.errors import ConfigError
from vmmd.state.target import Target, TargetDevice, check_target
from vmmd.state.versions import CURRENT, RELEASES

EVENT_IDX = 1 << 29
UNKNOWN = "Cannot translate microVM version to snapshot data version"
TOO_MANY = (
    "Too many devices attached: 12. The maximum number allowed for the snapshot data"
    " version requested is 11."
)
SUPPRESSION = (
    "The virtio devices use a features that is incompatible with older versions of"
    " Firecracker: notification suppression"
)
QUIET = TargetDevice("block", 1 << 32)
BLOCK = TargetDevice("block", EVENT_IDX | 1 << 32)
NET = TargetDevice("net", EVENT_IDX | 1 << 32)


def test_no_version_is_the_newest_whatever_the_devices() -> None:
    assert check_target(None, [NET] * 20) == Target(CURRENT, given=False)


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_is_a_target(release: str) -> None:
    assert check_target(release, [QUIET]) == Target(release, given=True)


@pytest.mark.parametrize(
    "version", ["0.22.0", "1.3.3", "1.1.0-dev", "1.1.0+b", "2.0.0", "9.9.9"]
)
def test_other_versions_are_none(version: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_target(version, [NET] * 20)
    assert str(caught.value) == UNKNOWN


@pytest.mark.parametrize(
    ("version", "devices", "text"),
    [
        ("0.23.0", [BLOCK] + [NET] * 11, TOO_MANY),
        ("0.23.0", [QUIET] * 12, TOO_MANY),
        ("0.23.0", [QUIET] * 11, None),
        ("0.24.0", [QUIET] * 12, None),
        ("0.23.0", [BLOCK], SUPPRESSION),
        ("0.24.0", [QUIET, BLOCK], SUPPRESSION),
        ("0.25.0", [TargetDevice("vsock", EVENT_IDX)], SUPPRESSION),
        ("1.0.0", [BLOCK], None),
        ("1.0.0", [BLOCK, NET], SUPPRESSION),
        ("1.1.0", [BLOCK, NET], None),
        ("0.23.0", [TargetDevice("net", ~EVENT_IDX & (1 << 64) - 1)], None),
    ],
)
def test_what_devices_rule_out(
    version: str, devices: list[TargetDevice], text: str | None
) -> None:
    if text is None:
        assert check_target(version, devices).release == version
        return
    with pytest.raises(ConfigError) as caught:
        check_target(version, devices)
    assert str(caught.value) == text
