"""A tap of our own with NAT behind it: the network of ``vmmd run --net``.

What is made bears the process's id: the tap ``vmmd<pid>`` and the nftables table
``vmmd_<pid>``. A shell that was started before takes both away when its standard
input ends, which it does however this process ends. Should that shell be killed
too, the next ``vmmd run --net`` finds names whose process is gone, and takes
them away.

Forwarding is turned on if it was off, and off again by the last to go: a table
with a chain of that name owes it. While it is on, only taps of ours are routed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from vmmd.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

POOL = IPv4Network("10.213.0.0/16")
"""Guests get /30 networks of it, which no address of the host is in."""

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CAP_NET_ADMIN = 12
_OWED = "forwarding_was_off"
_PREFIX_BITS = 30
_PROGRAMS = {"ip": "iproute2", "nft": "nftables"}
_ADMIN_PATH = "/usr/sbin:/sbin"
_NAME = re.compile(r"(?:vmmd|vmmd_)([0-9]+)")
_REMOVE = f"""
remove() {{ # remove TAP TABLE
    ip link del "$1"
    owed=$(nft list table ip "$2" | grep -c {_OWED})
    nft delete table ip "$2"
    [ "$owed" != 1 ] || nft list tables | grep -q "^table ip vmmd_" ||
        echo 0 >{FORWARDING}
}}
"""
# Signals to the whole group mean the monitor, whose end it waits for.
_GUARD = f"""{_REMOVE}
trap "" HUP INT TERM
read -r never
remove "$1" "$2" 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class Nat:
    """A tap with NAT, by its owner's process id and its /30 network."""

    pid: int
    network: IPv4Network

    @property
    def tap(self) -> str:
        """The tap's name."""
        return f"vmmd{self.pid}"

    @property
    def table(self) -> str:
        """The nftables table's name."""
        return f"vmmd_{self.pid}"

    @property
    def gateway(self) -> str:
        """The host's address."""
        return str(self.network[1])

    @property
    def address(self) -> str:
        """The guest's address."""
        return str(self.network[2])

    @property
    def guest_mac(self) -> str:
        """A MAC that no other guest of this host has: from the address."""
        return "06:00:" + self.network[2].packed.hex(":")

    @property
    def gateway_mac(self) -> str:
        """The tap's: a guest that comes back in another process still knows it."""
        return "06:00:" + self.network[1].packed.hex(":")

    @property
    def cmdline(self) -> str:
        """What tells the guest's init."""
        return f"vmmd.ip={self.address}/{_PREFIX_BITS},{self.gateway}"

    def links(self) -> str:
        """The lines for ``ip -batch`` that make the tap."""
        return (
            f"tuntap add dev {self.tap} mode tap\n"
            f"link set {self.tap} address {self.gateway_mac}\n"
            f"addr add {self.gateway}/{_PREFIX_BITS} dev {self.tap}\n"
            f"link set {self.tap} up\n"
        )

    def rules(self, *, forwarding_was_off: bool) -> str:
        """The nftables table: the guest's connections out, and their answers."""
        owed = f"chain {_OWED} {{ }}" if forwarding_was_off else ""
        others = 'iifname != "vmmd*" oifname != "vmmd*" drop'
        return f"""table ip {self.table} {{
    {owed}
    chain out {{
        type nat hook postrouting priority srcnat;
        ip saddr {self.network} oifname != "{self.tap}" masquerade
    }}
    chain through {{
        type filter hook forward priority filter;
        {others if forwarding_was_off else ""}
        oifname "{self.tap}" ct state established,related accept
        oifname "{self.tap}" drop
        iifname "{self.tap}" ip saddr != {self.network} drop
    }}
}}
"""


class Guarded:
    """A network that is up until :meth:`close`, or until this process ends."""

    def __init__(self, nat: Nat, guard: subprocess.Popen[bytes]) -> None:
        self.nat = nat
        self._guard = guard

    def close(self) -> None:
        """Take it away, and wait until it is."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()


def open_nat(network: IPv4Network | None = None) -> Guarded:
    """Make a tap with NAT; HostError says what is missing, and nothing is left.

    ``network``: that of a guest who knows it already; else a free one is taken.
    Starts processes: to be called while this one has a single thread.
    """
    check()
    sweep()
    used = _networks_in_use()
    nat = Nat(os.getpid(), network or free_network(os.getpid(), used))
    if _is_used(nat.network, used):
        raise HostError(
            f"--net: the guest's network, {nat.network}, is in use on this host, perhaps "
            "by the guest itself or a clone: end that, or give --tap IFACE=DEV"
        )
    if nat.tap in _links():
        raise HostError(
            f"--net: {nat.tap} is in use, by a process of another container"
        )
    made = Guarded(nat, _start_guard(nat))
    try:
        _make(nat)
    except HostError:
        made.close()
        raise
    return made


def _make(nat: Nat) -> None:
    _run(["ip", "-batch", "-"], nat.links())
    off = FORWARDING.read_text().strip() == "0"
    # On, but for others of ours alone: who goes last turns it off.
    owed = off or _OWED in _run(["nft", "list", "ruleset", "ip"])
    _run(["nft", "-f", "-"], nat.rules(forwarding_was_off=owed))
    if off:
        try:
            FORWARDING.write_text("1")
        except OSError as error:
            text = f"--net: {FORWARDING}: {error.strerror}; turn forwarding on before"
            raise HostError(text) from error


def check() -> None:
    """HostError, with the way out, unless this process may and can do it."""
    if not may_administer(Path("/proc/self/status").read_text()):
        raise HostError(
            "--net makes a tap and NAT, which needs CAP_NET_ADMIN: run it as root, or "
            "have root make a tap (`ip tuntap add dev tap0 mode tap user "
            f"{os.getuid()}`), and give `--net tap0`"
        )
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=_environment()["PATH"]) is None:
            raise HostError(
                f"--net needs {program}, which is missing: as root, "
                f"apt-get install {package}"
            )


def may_administer(status: str) -> bool:
    """Whether ``/proc/PID/status`` shows CAP_NET_ADMIN in effect."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> CAP_NET_ADMIN & 1)


def free_network(pid: int, used: Iterable[IPv4Network]) -> IPv4Network:
    """A /30 of the pool that overlaps none in use; HostError if all do.

    Processes that start at once look from different places on.
    """
    inside = [*used]
    size = 1 << 32 - _PREFIX_BITS
    count = POOL.num_addresses // size
    for number in range(count):
        start = int(POOL[0]) + (pid + number) % count * size
        network = IPv4Network((start, _PREFIX_BITS))
        if not _is_used(network, inside):
            return network
    raise HostError(f"--net: no /{_PREFIX_BITS} of {POOL} is free on this host")


def _is_used(network: IPv4Network, used: Iterable[IPv4Network]) -> bool:
    """Wider ones (a default route, 10.0.0.0/8) lose to the tap's own."""
    return any(network.overlaps(other) for other in used if other.subnet_of(POOL))


def network_of(cmdline: str) -> IPv4Network:
    """The network that a guest's command line tells it. HostError if it is not ours."""
    for found in re.finditer(r"(?<!\S)vmmd\.ip=([\d.]+)/\d+,[\d.]+(?!\S)", cmdline):
        try:
            network = IPv4Network(f"{found[1]}/{_PREFIX_BITS}", strict=False)
        except ValueError:
            continue
        if network.subnet_of(POOL) and Nat(0, network).cmdline == found[0]:
            return network
    raise HostError(
        "--net: the snapshot's guest was not started with --net, its command line has "
        f"no vmmd.ip= of {POOL}: give --tap IFACE=DEV"
    )


def sweep() -> None:
    """Take away what processes left that are gone with their guards."""
    links = _links()
    tables = re.findall(r"table ip (\S+)", _run(["nft", "list", "tables"]))
    found = (_NAME.fullmatch(name) for name in (*links, *tables))
    for pid in {int(match[1]) for match in found if match}:
        left = Nat(pid, POOL)
        # A process that cannot be seen from here may still have the tap open.
        held = links.get(left.tap, False)
        if not held and (pid == os.getpid() or not Path(f"/proc/{pid}").exists()):
            script = f'{_REMOVE}\nremove "$@"; true'
            _run(["sh", "-c", script, "sh", left.tap, left.table])


def _links() -> dict[str, bool]:
    """The host's interfaces, and whether each has a carrier: a tap, its holder."""
    text = _run(["ip", "-oneline", "link", "show"])
    rows = re.findall(r"^\d+: ([^:@]+)[^<]*<([^>]*)>", text, re.MULTILINE)
    return {name: "LOWER_UP" in flags.split(",") for name, flags in rows}


def _start_guard(nat: Nat) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["sh", "-c", _GUARD, "vmmd-net-guard", nat.tap, nat.table],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=_environment(),
    )


def _networks_in_use() -> list[IPv4Network]:
    """Of the host's routes, which name its own addresses' networks too."""
    text = _run(["ip", "-4", "route", "show", "table", "all"])
    words = re.findall(r"\b\d+\.\d+\.\d+\.\d+(?:/\d+)?\b", text)
    networks = (ip_network(word, strict=False) for word in words)
    return [each for each in networks if isinstance(each, IPv4Network)]


def _environment() -> dict[str, str]:
    """Ours, with the folders of administrators' tools, and plain English."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_PATH}"
    return {**os.environ, "PATH": path, "LC_ALL": "C"}


def _run(command: list[str], data: str = "") -> str:
    """What a tool prints; HostError with its complaint."""
    done = subprocess.run(
        command, input=data, capture_output=True, text=True, env=_environment()
    )
    if done.returncode:
        complaint = " ".join(done.stderr.split())
        text = f"--net: {' '.join(command)}: {complaint or done.returncode}"
        raise HostError(text)
    return done.stdout
