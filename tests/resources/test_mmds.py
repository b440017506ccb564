"""The metadata service's configuration: addresses, interfaces, texts."""

from __future__ import annotations

import pytest

from vmmd.config import MmdsConfig, MmdsVersion, NetworkInterfaceConfig
from vmmd.resources.fault import ResourceFault
from vmmd.resources.mmds import is_link_local, put_mmds, without_interface
from vmmd.resources.nets import Net, put_net
from vmmd.resources.store import VmResources

EMPTY = (
    "The list of network interface IDs that allow forwarding MMDS requests is empty."
)
UNKNOWN = (
    "The list of network interface IDs provided contains at least one ID that does "
    "not correspond to any existing network interface."
)
LOCAL = "The MMDS IPv4 address is not link local."


class FakeTap:
    """A tap that is always there."""

    name = "tap"
    exists = True

    def close(self) -> None:
        """Nothing is open."""


def resources(*ids: str) -> VmResources:
    nets = tuple(Net(NetworkInterfaceConfig(name, "tap"), FakeTap()) for name in ids)
    return VmResources(nets=nets)


def config(*ids: str, address: str | None = None) -> MmdsConfig:
    return MmdsConfig(MmdsVersion.V2, ids, address, False)


def test_the_address_is_filled_in_and_interfaces_are_in_order() -> None:
    now = put_mmds(resources("a", "b", "c"), config("c", "a", "c"))
    assert now.mmds == config("a", "c", address="169.254.169.254")
    now = put_mmds(now, config("b", address="169.254.1.0"))
    assert now.mmds == config("b", address="169.254.1.0")


@pytest.mark.parametrize(
    ("asked", "text", "debug"),
    [
        (config(), EMPTY, "EmptyNetworkIfaceList"),
        (config("a", "x"), UNKNOWN, "InvalidNetworkInterfaceId"),
        (config("x", address="10.0.0.1"), LOCAL, "InvalidIpv4Addr"),
        (config(address="169.254.0.255"), LOCAL, "InvalidIpv4Addr"),
    ],
)
def test_what_is_refused(asked: MmdsConfig, text: str, debug: str) -> None:
    with pytest.raises(ResourceFault) as caught:
        put_mmds(resources("a"), asked)
    assert str(caught.value) == f"MMMDS config error: {text}"
    assert caught.value.file_text == f"MMDS config error: {text}"
    assert caught.value.debug == f"MmdsConfig({debug})"


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("169.254.0.255", False),
        ("169.254.1.0", True),
        ("169.254.254.255", True),
        ("169.254.255.0", False),
        ("169.253.1.1", False),
        ("168.254.1.1", False),
    ],
)
def test_link_local(address: str, fits: bool) -> None:
    assert is_link_local(address) is fits


def test_an_interface_that_is_put_anew_has_no_service() -> None:
    now = put_mmds(resources("a", "b"), config("a", "b"))
    again = NetworkInterfaceConfig("a", "tap")
    now = put_net(now, again, lambda _: FakeTap())
    assert now.mmds == config("b", address="169.254.169.254")
    now = put_net(now, NetworkInterfaceConfig("b", "tap"), lambda _: FakeTap())
    assert now.mmds is None
    assert without_interface(None, "a") is None
