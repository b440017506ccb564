"""NAT of a guest's own: its network, its rules, who may have one."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.cli.nat import POOL, Nat, free_network, may_administer, network_of
from vmmd.errors import HostError

NAT = Nat(4321, IPv4Network("10.213.7.8/30"))
NETWORKS = st.builds(
    lambda number, prefix: IPv4Network((int(POOL[0]) + number, prefix), strict=False),
    st.integers(0, POOL.num_addresses - 1),
    st.integers(17, 32),
)


def test_names_and_addresses() -> None:
    assert (NAT.tap, NAT.table) == ("vmmd4321", "vmmd_4321")
    assert (NAT.gateway, NAT.address) == ("10.213.7.9", "10.213.7.10")
    assert NAT.cmdline == "vmmd.ip=10.213.7.10/30,10.213.7.9"
    assert NAT.guest_mac == "06:00:0a:d5:07:0a"
    assert NAT.gateway_mac == "06:00:0a:d5:07:09"


def test_the_largest_process_id_makes_names_that_fit() -> None:
    assert len(Nat(1 << 22, POOL).tap) < 16


@given(st.integers(1, 1 << 22), st.lists(NETWORKS, max_size=20))
def test_a_free_network_overlaps_none_in_use(pid: int, used: list[IPv4Network]) -> None:
    try:
        found = free_network(pid, used)
    except HostError:
        assert sum(network.num_addresses for network in used) >= POOL.num_addresses
    else:
        assert found.subnet_of(POOL)
        assert found.prefixlen == 30
        assert not any(found.overlaps(network) for network in used)


@given(st.integers(0, POOL.num_addresses // 4 - 1), st.text("ab =", max_size=9))
def test_a_guests_network_is_read_from_its_command_line(number: int, more: str) -> None:
    network = IPv4Network((int(POOL[0]) + 4 * number, 30))
    line = f"{more} vmmd.ip=192.0.2.2/24,192.0.2.1 {Nat(1, network).cmdline} {more}"
    assert network_of(line) == network


@pytest.mark.parametrize(
    "cmdline",
    [
        "",
        "console=ttyS0",
        "vmmd.ip=192.0.2.2/30,192.0.2.1",  # not of the pool
        "vmmd.ip=10.213.7.9/30,10.213.7.10",  # the other way round
        "vmmd.ip=10.213.7.10/24,10.213.7.9",
        "vmmd.ip=10.213.7.10/30,10.213.7.9x",
        "no_vmmd.ip=10.213.7.10/30,10.213.7.9",
        "vmmd.ip=10.213.7.1000/30,10.213.7.9",
    ],
)
def test_a_command_line_without_a_network_of_ours(cmdline: str) -> None:
    with pytest.raises(HostError, match=r"not started with --net.* give --tap"):
        network_of(cmdline)


def test_wider_routes_do_not_count() -> None:
    wide = [IPv4Network("0.0.0.0/0"), IPv4Network("10.0.0.0/8")]
    assert free_network(1, wide) == free_network(1, [])


def test_a_pool_that_is_all_taken() -> None:
    with pytest.raises(HostError, match=r"no /30 of 10\.213\.0\.0/16 is free"):
        free_network(1, [POOL])


def test_processes_that_start_at_once_look_in_different_places() -> None:
    assert len({free_network(pid, []) for pid in range(1000, 2000)}) == 1000


@pytest.mark.parametrize("owed", [True, False])
def test_other_traffic_is_held_back_only_where_it_was_before(owed: bool) -> None:
    rules = NAT.rules(forwarding_was_off=owed)
    assert ('iifname != "vmmd*" oifname != "vmmd*" drop' in rules) == owed
    assert ("chain forwarding_was_off" in rules) == owed
    assert re.search(r"ip saddr 10\.213\.7\.8/30 .* masquerade", rules)


@pytest.mark.parametrize(
    ("status", "may"),
    [
        ("CapPrm:\t0\nCapEff:\t000001ffffffffff\n", True),
        ("CapEff:\t0000000000001000\n", True),
        ("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000fff\n", False),
        ("", False),
    ],
)
def test_who_may(status: str, may: bool) -> None:
    assert may_administer(status) is may
