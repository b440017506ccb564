"""A network of the test's own, with taps in it: needs root.

The thread of the test moves into a new network namespace and back; a tap is
opened in the namespace of the thread that opens it, and stays there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x4000_0000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFMTU = 0x8913, 0x8914, 0x8921
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x4004_54CA, 0x4004_54CB, 0x4004_54CC
IFF_UP, IFF_TUN, IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI = 1, 1, 2, 0x100, 0x1000
RTM_DELLINK, NLM_F_REQUEST_ACK = 17, 5
ETH_P_ALL = 3
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """The calling thread in a new network namespace, without IPv6 chatter."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        try:
            chatter = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
            if chatter.exists():
                chatter.write_text("1")
            yield
        finally:
            _check(_libc.setns(before, CLONE_NEWNET), "setns")
    finally:
        os.close(before)


def _check(result: int, call: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def make_persistent(name: str, kind: int = IFF_TAP, owner: int | None = None) -> None:
    """A tap (or what ``kind`` says) that stays when nobody has it open."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = kind | IFF_NO_PI
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if owner is not None:
            fcntl.ioctl(fd, TUNSETOWNER, owner)
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def set_up(name: str, up: bool = True) -> None:
    """`ip link set NAME up`, or down."""
    with socket.socket() as any_socket:
        request = bytearray(struct.pack("16sH22x", name.encode(), 0))
        fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", request, 16)
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        struct.pack_into("H", request, 16, flags)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def delete(name: str) -> None:
    """`ip link del NAME`."""
    body = struct.pack("BxHiII", 0, 0, socket.if_nametoindex(name), 0, 0)
    header = struct.pack("IHHII", 16 + len(body), RTM_DELLINK, NLM_F_REQUEST_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(header + body)
        reply = route.recv(4096)
    (error,) = struct.unpack_from("i", reply, 16)
    if error:
        raise OSError(-error, f"RTM_DELLINK {name}: {os.strerror(-error)}")


@contextmanager
def wire(name: str) -> Iterator[socket.socket]:
    """The host's side of a tap that is up: whole frames, without blocking."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with closing(packets):
        packets.bind((name, 0))
        packets.setblocking(False)
        yield packets
