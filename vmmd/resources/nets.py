"""Network interfaces: their order, taps, MACs, and what a PATCH makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.rust import debug_str, io_error, io_error_debug

from .fault import OpenedFile, ResourceFault, RustError
from .limiters import effective_limiter, merge_limiter
from .mmds import without_interface

if TYPE_CHECKING:
    from vmmd.config import NetworkInterfaceConfig, NetworkInterfaceUpdate

    from .store import VmResources

MIN_MTU = 68
MAX_MTU = 65535

_CREATE = "Could not create the network device: "
_ATTACH = (
    "Error while creating ifreq structure: {}. Invalid TUN/TAP Backend provided by {}."
    " Check our documentation on setting up the network devices."
)
_HEADER = "Error while setting size of the vnet header: "
_NOT_FOUND = RustError(
    "Unable to update the net device: Failed perform action on device: Device not"
    " found",
    "DeviceUpdate(FindDeviceError(DeviceNotFound))",
)


class TapStep(Enum):
    """What failed when a tap was opened, in the order of trying."""

    OPEN = "open"
    NAME = "name"
    ATTACH = "TUNSETIFF"
    HEADER = "TUNSETVNETHDRSZ"


class TapFault(HostError):
    """A tap that cannot be had. ``str()`` names the call, the errno and the way out.

    ``error`` is the failed call's, None where the name alone is wrong; ``node``
    is the device node.
    """

    def __init__(
        self, text: str, step: TapStep, error: OSError | None, node: str
    ) -> None:
        super().__init__(text)
        self.step = step
        self.error = error
        self.node = node


class OpenedTap(OpenedFile, Protocol):
    """A tap that is held open."""

    @property
    def name(self) -> str:
        """What the host calls it: what was asked for, but for names that the
        kernel fills in (none, or one with ``%d``)."""

    @property
    def exists(self) -> bool:
        """Whether the host still has the interface."""


# The name -> the tap, its header of the right size. Raises TapFault.
TapOpener: TypeAlias = Callable[[str], OpenedTap]


@dataclass(frozen=True, slots=True)
class Net:
    """An interface with its tap open; ``config`` has the tap's real name."""

    config: NetworkInterfaceConfig
    tap: OpenedTap


def put_net(
    now: VmResources, config: NetworkInterfaceConfig, opener: TapOpener
) -> VmResources:
    """The configuration with one interface more, or one replaced: the step of
    ``PUT /network-interfaces/{id}``. Raises ResourceFault and changes nothing."""
    nets = insert_net(now.nets, config, opener)
    return replace(now, nets=nets, mmds=without_interface(now.mmds, config.iface_id))


def insert_net(
    nets: tuple[Net, ...], config: NetworkInterfaceConfig, opener: TapOpener
) -> tuple[Net, ...]:
    """The interfaces with one more, at the end.

    One of the same id goes, and the last one takes its place; its tap is kept
    where the name is the same. Raises ResourceFault.
    """
    _check_mac(nets, config)
    ids = [net.config.iface_id for net in nets]
    if config.iface_id not in ids:
        return (*nets, open_net(config, opener))
    place = ids.index(config.iface_id)
    new = open_net(config, opener, nets[place].tap)
    rest = list(nets)
    rest[place] = rest[-1]
    return (*rest[:-1], new)


def _check_mac(nets: tuple[Net, ...], config: NetworkInterfaceConfig) -> None:
    taken = {
        net.config.guest_mac for net in nets if net.config.iface_id != config.iface_id
    }
    if config.guest_mac is not None and config.guest_mac in taken:
        text = f"The MAC address is already in use: {config.guest_mac}"
        debug = f"GuestMacAddressInUse({debug_str(config.guest_mac)})"
        raise ResourceFault("net", RustError(text, debug))


def open_net(
    config: NetworkInterfaceConfig, opener: TapOpener, held: OpenedTap | None = None
) -> Net:
    """Open an interface's tap, check its MTU, fill in what the host has chosen.

    A tap has one holder: ``held``, the interface's so far, is kept if it is the
    one that is asked for.
    """
    tap = _tap(config.host_dev_name, opener, held)
    if config.mtu is not None and not MIN_MTU <= config.mtu <= MAX_MTU:
        if tap is not held:
            tap.close()
        text = f"MTU {config.mtu} is out of range [{MIN_MTU}, {MAX_MTU}]"
        raise _create_fault(text, f"InvalidMtu({config.mtu})")
    full = replace(
        config,
        host_dev_name=tap.name,
        rx_rate_limiter=effective_limiter(config.rx_rate_limiter),
        tx_rate_limiter=effective_limiter(config.tx_rate_limiter),
    )
    return Net(full, tap)


def _tap(name: str, opener: TapOpener, held: OpenedTap | None) -> OpenedTap:
    if held is not None and held.name == name and held.exists:
        return held
    try:
        return opener(name)
    except TapFault as fault:
        raise _tap_fault(fault, name) from fault


def _tap_fault(fault: TapFault, name: str) -> ResourceFault:
    error = fault.error or OSError()
    text, debug = io_error(error), io_error_debug(error)
    match fault.step:
        case TapStep.OPEN:
            inner = f"Couldn't open {fault.node}: {text}", f"OpenTun({debug})"
        case TapStep.NAME:
            inner = "Invalid interface name", "InvalidIfname"
        case TapStep.ATTACH:
            inner = _ATTACH.format(text, name), _ifreq_debug(debug, name)
        case TapStep.HEADER:
            return _create_fault(
                f"Setting vnet header size failed: {_HEADER}{text}",
                f"TapSetVnetHdrSize(SetSizeOfVnetHdr({debug}))",
                str(fault),
            )
    return _create_fault(
        f"Open tap device failed: {inner[0]}", f"TapOpen({inner[1]})", str(fault)
    )


def _ifreq_debug(error: str, name: str) -> str:
    return f"IfreqExecuteError({error}, {debug_str(name)})"


def _create_fault(text: str, debug: str, hint: str = "") -> ResourceFault:
    error = RustError(f"{_CREATE}{text}", f"CreateNetworkDevice({debug})")
    return ResourceFault("net", error, hint)


def patch_net(nets: tuple[Net, ...], update: NetworkInterfaceUpdate) -> tuple[Net, ...]:
    """The interfaces of a started machine after ``PATCH /network-interfaces/{id}``:
    their rate limiters. Raises ResourceFault."""
    for place, net in enumerate(nets):
        if net.config.iface_id == update.iface_id:
            config = replace(
                net.config,
                rx_rate_limiter=merge_limiter(
                    net.config.rx_rate_limiter, update.rx_rate_limiter
                ),
                tx_rate_limiter=merge_limiter(
                    net.config.tx_rate_limiter, update.tx_rate_limiter
                ),
            )
            return (*nets[:place], Net(config, net.tap), *nets[place + 1 :])
    raise ResourceFault("net", _NOT_FOUND)
