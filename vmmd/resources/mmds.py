"""The metadata service's configuration: on which interfaces, at which address."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .fault import ResourceFault, RustError

if TYPE_CHECKING:
    from vmmd.config import MmdsConfig

    from .store import VmResources

DEFAULT_IPV4 = "169.254.169.254"
_NOT_LINK_LOCAL = RustError(
    "The MMDS IPv4 address is not link local.", "InvalidIpv4Addr"
)
_NO_INTERFACES = RustError(
    "The list of network interface IDs that allow forwarding MMDS requests is empty.",
    "EmptyNetworkIfaceList",
)
_UNKNOWN_INTERFACE = RustError(
    "The list of network interface IDs provided contains at least one ID that does not"
    " correspond to any existing network interface.",
    "InvalidNetworkInterfaceId",
)


def put_mmds(now: VmResources, config: MmdsConfig) -> VmResources:
    """The configuration with the service's: the step of ``PUT /mmds/config``.

    The address is filled in, the interfaces are in the order of their slots.
    Raises ResourceFault and changes nothing.
    """
    address = config.ipv4_address or DEFAULT_IPV4
    if not is_link_local(address):
        raise ResourceFault("mmds", _NOT_LINK_LOCAL)
    named = set(config.network_interfaces)
    if not named:
        raise ResourceFault("mmds", _NO_INTERFACES)
    ids = [net.config.iface_id for net in now.nets]
    if not named <= set(ids):
        raise ResourceFault("mmds", _UNKNOWN_INTERFACE)
    chosen = tuple(iface_id for iface_id in ids if iface_id in named)
    full = replace(config, network_interfaces=chosen, ipv4_address=address)
    return replace(now, mmds=full)


def without_interface(config: MmdsConfig | None, iface_id: str) -> MmdsConfig | None:
    """The configuration when an interface is put anew, which has no service then."""
    if config is None or iface_id not in config.network_interfaces:
        return config
    left = tuple(name for name in config.network_interfaces if name != iface_id)
    return replace(config, network_interfaces=left) if left else None


def is_link_local(address: str) -> bool:
    """Whether an IPv4 address in dotted decimals may be the service's (RFC 3927:
    the first and the last 256 of the block are reserved)."""
    first, second, third, _ = (int(part) for part in address.split("."))
    return (first, second) == (169, 254) and 1 <= third <= 254
