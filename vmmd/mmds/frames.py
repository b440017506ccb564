"""Ethernet and IPv4 as bytes: what a frame says, and frames of our own."""

from __future__ import annotations

import struct

from vmmd.frozen import dataclass

MAC_BYTES = 6
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
PROTOCOL_TCP = 6

_ETHERNET = struct.Struct(">6s6sH")
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_VERSION_IHL = 0x45
_DONT_FRAGMENT = 0x4000
_FRAGMENT = 0x3FFF  # more of them, or not the first
_TTL = 64
_ONES = 0xFFFF


class Malformed(ValueError):
    """Bytes that are not what they should be: to be dropped and counted."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame without its checksum; addresses are 6 bytes."""

    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet, neither a fragment nor with options that count."""

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes


def ones_sum(data: bytes) -> int:
    """The ones' complement sum of 16-bit words, an odd byte padded with zero.

    Two to the 16th is 1 modulo 65,535, so the whole is one division.
    """
    number = int.from_bytes(data, "big")
    return (number << 8 if len(data) % 2 else number) % _ONES


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of bytes whose own field is zero."""
    return (_ONES - ones_sum(data)) % _ONES


def parse_frame(data: bytes) -> Frame:
    """What an Ethernet frame says. Raises Malformed."""
    if len(data) < _ETHERNET.size:
        raise Malformed("shorter than an Ethernet header")
    destination, source, ethertype = _ETHERNET.unpack_from(data)
    return Frame(destination, source, ethertype, data[_ETHERNET.size :])


def build_frame(frame: Frame) -> bytes:
    """The bytes of an Ethernet frame."""
    head = _ETHERNET.pack(frame.destination, frame.source, frame.ethertype)
    return head + frame.payload


def parse_packet(data: bytes) -> Packet:
    """What an IPv4 packet says; padding behind it is left out.

    Options are skipped and the time to live is not judged. Raises Malformed, for
    a fragment too: nothing that the service is asked needs more than one packet.
    """
    if len(data) < _IPV4.size:
        raise Malformed("shorter than an IPv4 header")
    version_ihl, _, total, _, fragment, _, protocol, _, source, destination = (
        _IPV4.unpack_from(data)
    )
    header = (version_ihl & 0xF) * 4
    if version_ihl >> 4 != 4 or header < _IPV4.size:
        raise Malformed("no IPv4 header")
    if not header <= total <= len(data):
        raise Malformed("the total length does not fit")
    if fragment & _FRAGMENT:
        raise Malformed("a fragment")
    if ones_sum(data[:header]):
        raise Malformed("wrong header checksum")
    return Packet(source, destination, protocol, data[header:total])


def build_packet(packet: Packet) -> bytes:
    """The bytes of an IPv4 packet, checksum included."""
    total = _IPV4.size + len(packet.payload)
    ends = packet.source, packet.destination

    def header(check: int) -> bytes:
        flags = 0, _DONT_FRAGMENT, _TTL, packet.protocol
        return _IPV4.pack(_VERSION_IHL, 0, total, *flags, check, *ends)

    return header(checksum(header(0))) + packet.payload
