"""What a snapshot brings back is what was configured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import (
    CacheType,
    DriveConfig,
    IoEngine,
    MmdsConfig,
    MmdsVersion,
    NetworkInterfaceConfig,
)
from vmmd.errors import SnapshotError
from vmmd.mmds.state import MmdsState
from vmmd.resources.restored import drive_config, mmds_config, mmds_state, net_config
from vmmd.virtio.block import BlockState
from vmmd.virtio.net import NetState

HERE = bytes((169, 254, 169, 254))


def net(iface_id: str, address: bytes | None = None) -> NetState:
    return NetState(iface_id=iface_id, host_dev_name="t", mmds_ipv4=address)


def test_a_drive() -> None:
    state = BlockState(
        drive_id="d",
        path_on_host="/d",
        is_read_only=True,
        cache_type="Writeback",
        io_engine="Async",
    )
    expected = DriveConfig(
        "d", None, False, CacheType.WRITEBACK, True, "/d", None, IoEngine.ASYNC
    )
    assert drive_config(state) == expected


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (
            BlockState(drive_id="d", path_on_host="/d", cache_type="x"),
            "cache_type: 'x'",
        ),
        (BlockState(drive_id="d", path_on_host="/d", io_engine="x"), "io_engine: 'x'"),
    ],
)
def test_a_drive_with_a_name_that_is_not_known(state: BlockState, text: str) -> None:
    with pytest.raises(SnapshotError, match=f"block d: {text} is not known"):
        drive_config(state)


def test_an_interface() -> None:
    state = NetState(
        iface_id="i",
        host_dev_name="t",
        guest_mac=bytes.fromhex("0600ac100002"),
        mtu=9 * 160,
    )
    expected = NetworkInterfaceConfig("i", "t", "06:00:ac:10:00:02", 1440)
    assert net_config(state) == expected


@given(st.sampled_from(MmdsVersion), st.booleans(), st.binary(min_size=4, max_size=4))
def test_the_metadata_service(version: MmdsVersion, compat: bool, ip: bytes) -> None:
    config = MmdsConfig(version, ("b", "c"), ".".join(map(str, ip)), compat)
    nets = [net("a"), net("b", ip), net("c", ip)]
    assert mmds_config(mmds_state(config), nets) == config


def test_without_a_record_of_it_it_was_version_1() -> None:
    made = mmds_config(None, [net("a", HERE)])
    assert made == MmdsConfig(MmdsVersion.V1, ("a",), "169.254.169.254", False)


def test_on_no_interface_there_is_none() -> None:
    assert mmds_config(MmdsState(version="V2"), [net("a")]) is None
    assert mmds_state(None) is None


def test_two_addresses_are_one_too_many() -> None:
    with pytest.raises(SnapshotError, match="mmds_ipv4: the interfaces have several"):
        mmds_config(None, [net("a", HERE), net("b", bytes(4))])


def test_a_version_that_is_not_known() -> None:
    with pytest.raises(SnapshotError, match="mmds: version: 'V3' is not known"):
        mmds_config(MmdsState(version="V3"), [net("a", HERE)])
