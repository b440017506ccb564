"""ARP (RFC 826) for IPv4 over Ethernet: who asks, and our answer."""

from __future__ import annotations

import struct

from vmmd.frozen import dataclass

from .frames import ETHERTYPE_ARP, ETHERTYPE_IPV4, Frame, Malformed, build_frame

_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ETHERNET = 1
_REQUEST = 1
_REPLY = 2
_FIXED = (_ETHERNET, ETHERTYPE_IPV4, 6, 4)


@dataclass(frozen=True, slots=True)
class Request:
    """A question for the hardware address of ``target``."""

    sender_mac: bytes
    sender: bytes
    target: bytes


def parse_request(payload: bytes) -> Request:
    """The question in an Ethernet payload; padding is left out. Raises Malformed."""
    if len(payload) < _ARP.size:
        raise Malformed("shorter than an ARP packet")
    *fixed, operation, mac, sender, _, target = _ARP.unpack_from(payload)
    if tuple(fixed) != _FIXED:
        raise Malformed("not ARP for IPv4 over Ethernet")
    if operation != _REQUEST:
        raise Malformed("not an ARP request")
    return Request(mac, sender, target)


def build_reply(request: Request, mac: bytes) -> bytes:
    """The frame that says that the address asked for is at ``mac``."""
    asked = request.sender_mac, request.sender
    payload = _ARP.pack(*_FIXED, _REPLY, mac, request.target, *asked)
    return build_frame(Frame(request.sender_mac, mac, ETHERTYPE_ARP, payload))
