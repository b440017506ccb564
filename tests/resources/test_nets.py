"""Network interfaces: order, MACs, taps and who holds them, MTU, patches."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import (
    NetworkInterfaceConfig,
    NetworkInterfaceUpdate,
    RateLimiterConfig,
    TokenBucketConfig,
)
from vmmd.resources.fault import ResourceFault
from vmmd.resources.nets import (
    Net,
    TapFault,
    TapStep,
    insert_net,
    patch_net,
    put_net,
)
from vmmd.resources.store import VmResources, dropped

CREATE = "Network config error: Could not create the network device: "
BUCKET = TokenBucketConfig(10, None, 5)
OFF = TokenBucketConfig(0, None, 0)


@dataclass(eq=False)
class HeldTap:
    """A tap that is open."""

    name: str
    exists: bool = True
    closed: int = 0

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@dataclass
class Taps:
    """A host's taps: each has one holder; a name in ``faults`` fails so."""

    faults: dict[str, tuple[TapStep, int]] = field(default_factory=dict)
    opened: list[HeldTap] = field(default_factory=list)

    def open(self, name: str) -> HeldTap:
        """A TapOpener."""
        step, number = self.faults.get(name, (TapStep.ATTACH, 0))
        if any(tap.name == name and not tap.closed for tap in self.opened):
            number = errno.EBUSY
        if number:
            error = OSError(number, os.strerror(number))
            raise TapFault(f"hint of {name}", step, error, "/dev/net/tun")
        self.opened.append(HeldTap(name or "tap0"))
        return self.opened[-1]

    def held(self) -> list[str]:
        """The names of those that are open."""
        return [tap.name for tap in self.opened if not tap.closed]


def iface(
    name: str, tap: str | None = None, mac: str | None = None, mtu: int | None = None
) -> NetworkInterfaceConfig:
    """An interface as a request gives it; its tap is named after it."""
    return NetworkInterfaceConfig(name, tap or f"t{name}", mac, mtu)


def put(
    taps: Taps, *configs: NetworkInterfaceConfig, before: tuple[Net, ...] = ()
) -> tuple[Net, ...]:
    """The interfaces after these PUTs; what is dropped is closed."""
    now = VmResources(nets=before)
    for config in configs:
        new = put_net(now, config, taps.open)
        for file in dropped(now, new):
            file.close()
        now = new
    return now.nets


def ids(nets: tuple[Net, ...]) -> str:
    return "".join(net.config.iface_id for net in nets)


def test_a_replaced_one_moves_to_the_end_and_the_last_into_its_place() -> None:
    taps = Taps()
    nets = put(taps, iface("a"), iface("b"), iface("c"))
    assert ids(nets) == "abc"
    assert ids(put(taps, iface("a"), before=nets)) == "cba"
    assert ids(put(taps, iface("c"), before=nets)) == "abc"


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_each_id_has_one_interface_and_one_tap(names: list[str]) -> None:
    taps = Taps()
    nets = put(taps, *(iface(name) for name in names))
    assert sorted(ids(nets)) == sorted(set(names))
    assert sorted(taps.held()) == sorted(f"t{name}" for name in set(names))
    model: list[str] = []
    for name in names:  # swap_remove, then push
        if name in model:
            model[model.index(name)] = model[-1]
            model.pop()
        model.append(name)
    assert ids(nets) == "".join(model)


def test_a_tap_is_kept_by_whom_asks_for_it_again() -> None:
    taps = Taps()
    (first,) = put(taps, iface("a"))
    (again,) = put(taps, iface("a", mtu=1400), before=(first,))
    assert again.tap is first.tap
    assert again.config.mtu == 1400
    taps.opened[0].exists = False
    taps.opened[0].closed = 1  # deleted from outside, so the name is free
    (anew,) = put(taps, iface("a"), before=(again,))
    assert anew.tap is taps.opened[1]


def test_another_tap_for_the_same_id_frees_the_old_one() -> None:
    taps = Taps()
    nets = put(taps, iface("a", "one"))
    nets = put(taps, iface("a", "two"), iface("b", "one"), before=nets)
    assert taps.held() == ["two", "one"]
    with pytest.raises(ResourceFault, match=r"Resource busy \(os error 16\)"):
        insert_net(nets, iface("a", "one"), taps.open)
    assert taps.held() == ["two", "one"]


def test_a_mac_belongs_to_one_interface() -> None:
    taps, mac = Taps(), "06:00:00:00:00:01"
    nets = put(taps, iface("a", mac=mac), iface("b"))
    with pytest.raises(ResourceFault) as refused:
        insert_net(nets, iface("c", "busy", mac=mac), taps.open)
    assert str(refused.value) == (
        f"Network config error: The MAC address is already in use: {mac}"
    )
    assert refused.value.debug == f'NetDevice(GuestMacAddressInUse("{mac}"))'
    assert taps.held() == ["ta", "tb"]
    assert ids(put(taps, iface("a", mac=mac), before=nets)) == "ba"


def test_none_is_no_mac() -> None:
    assert ids(put(Taps(), iface("a"), iface("b"))) == "ab"


@pytest.mark.parametrize("mtu", [0, 67, 65536])
def test_an_mtu_out_of_range_lets_go_of_the_tap(mtu: int) -> None:
    taps = Taps()
    text = rf"^{CREATE}MTU {mtu} is out of range \[68, 65535\]$"
    with pytest.raises(ResourceFault, match=text):
        put(taps, iface("a", mtu=mtu))
    assert taps.held() == []
    nets = put(taps, iface("a"))
    with pytest.raises(ResourceFault, match=text):
        put(taps, iface("a", mtu=mtu), before=nets)
    assert taps.held() == ["ta"]


@pytest.mark.parametrize("mtu", [68, 1500, 65535])
def test_the_mtus_that_are_taken(mtu: int) -> None:
    (net,) = put(Taps(), iface("a", mtu=mtu))
    assert net.config.mtu == mtu


def test_the_name_is_the_one_that_the_kernel_gave() -> None:
    (net,) = put(Taps(), NetworkInterfaceConfig("a", ""))
    assert net.config.host_dev_name == "tap0"


@pytest.mark.parametrize(
    ("step", "number", "text", "debug"),
    [
        (
            TapStep.OPEN,
            errno.ENOENT,
            "Open tap device failed: Couldn't open /dev/net/tun: No such file or"
            " directory (os error 2)",
            'TapOpen(OpenTun(Os { code: 2, kind: NotFound, message: "No such file or'
            ' directory" }))',
        ),
        (
            TapStep.NAME,
            errno.EINVAL,
            "Open tap device failed: Invalid interface name",
            "TapOpen(InvalidIfname)",
        ),
        (
            TapStep.ATTACH,
            errno.EPERM,
            "Open tap device failed: Error while creating ifreq structure: Operation"
            " not permitted (os error 1). Invalid TUN/TAP Backend provided by t."
            " Check our documentation on setting up the network devices.",
            "TapOpen(IfreqExecuteError(Os { code: 1, kind: PermissionDenied, message:"
            ' "Operation not permitted" }, "t"))',
        ),
        (
            TapStep.HEADER,
            errno.EINVAL,
            "Setting vnet header size failed: Error while setting size of the vnet"
            " header: Invalid argument (os error 22)",
            "TapSetVnetHdrSize(SetSizeOfVnetHdr(Os { code: 22, kind: InvalidInput,"
            ' message: "Invalid argument" }))',
        ),
    ],
    ids=lambda value: value.name if isinstance(value, TapStep) else "",
)
def test_what_is_said_of_a_tap_that_cannot_be_had(
    step: TapStep, number: int, text: str, debug: str
) -> None:
    taps = Taps(faults={"t": (step, number)})
    with pytest.raises(ResourceFault) as refused:
        put(taps, iface("a", "t"))
    assert str(refused.value) == CREATE + text
    assert refused.value.file_text == (
        f"Network device error: Could not create the network device: {text}"
    )
    assert refused.value.debug == f"NetDevice(CreateNetworkDevice({debug}))"
    assert refused.value.hint == "hint of t"


def test_limiters_that_do_not_limit_are_none() -> None:
    config = replace(
        iface("a"),
        rx_rate_limiter=RateLimiterConfig(OFF, BUCKET),
        tx_rate_limiter=RateLimiterConfig(OFF, None),
    )
    (net,) = put(Taps(), config)
    assert net.config.rx_rate_limiter == RateLimiterConfig(None, BUCKET)
    assert net.config.tx_rate_limiter is None


def test_a_patch_changes_the_buckets_that_it_names() -> None:
    nets = put(Taps(), iface("a"), iface("b"))
    rx, tx = RateLimiterConfig(BUCKET, None), RateLimiterConfig(None, BUCKET)
    nets = patch_net(nets, NetworkInterfaceUpdate("b", rx, tx))
    nets = patch_net(nets, NetworkInterfaceUpdate("b", RateLimiterConfig(OFF, BUCKET)))
    assert [net.config.rx_rate_limiter for net in nets] == [
        None,
        RateLimiterConfig(None, BUCKET),
    ]
    assert [net.config.tx_rate_limiter for net in nets] == [None, tx]
    assert ids(nets) == "ab"


def test_a_patch_of_nobody() -> None:
    with pytest.raises(ResourceFault) as refused:
        patch_net(put(Taps(), iface("a")), NetworkInterfaceUpdate("b"))
    assert str(refused.value) == (
        "Network config error: Unable to update the net device: Failed perform action"
        " on device: Device not found"
    )
