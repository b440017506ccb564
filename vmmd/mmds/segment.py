"""TCP segments (RFC 9293) as bytes and back."""

from __future__ import annotations

import struct
from enum import IntFlag

from vmmd.frozen import dataclass

from .frames import PROTOCOL_TCP, Malformed, Packet, checksum, ones_sum

_TCP = struct.Struct(">HHIIBBHHH")
_CHECK_AT = 16
_OPTION_END = 0
_OPTION_NOP = 1
_OPTION_MSS = 2
_MSS_OPTION_BYTES = 4
_ONES = 0xFFFF


class Flags(IntFlag):
    """The control bits that count here."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. ``mss`` is that of its option, None without one."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int
    mss: int | None = None
    payload: bytes = b""

    @property
    def length(self) -> int:
        """How much of the sequence space it takes."""
        return len(self.payload) + bool(self.flags & Flags.SYN) + self.fin

    @property
    def fin(self) -> bool:
        """Whether it ends the sender's stream."""
        return bool(self.flags & Flags.FIN)


def parse_segment(packet: Packet) -> Segment:
    """The segment in a packet. Raises Malformed, for a wrong checksum too.

    A guest whose device computes checksums leaves only the sum of the pseudo
    header in the field: nothing is lost on the way, so that is as good.
    """
    data = packet.payload
    if len(data) < _TCP.size:
        raise Malformed("shorter than a TCP header")
    source, destination, seq, ack, offset, flags, window, check, _ = _TCP.unpack_from(
        data
    )
    header = (offset >> 4) * 4
    if not _TCP.size <= header <= len(data):
        raise Malformed("the data offset does not fit")
    pseudo = _pseudo_header(packet.source, packet.destination, len(data))
    if ones_sum(pseudo + data) and check % _ONES != ones_sum(pseudo):
        raise Malformed("wrong TCP checksum")
    mss = _find_mss(data[_TCP.size : header])
    payload = data[header:]
    return Segment(source, destination, seq, ack, flags, window, mss, payload)


def build_segment(segment: Segment, source: bytes, destination: bytes) -> bytes:
    """The bytes of a segment between two addresses, checksum included."""
    options = b""
    if segment.mss is not None:
        head = _OPTION_MSS, _MSS_OPTION_BYTES
        options = struct.pack(">BBH", *head, segment.mss)
    header = _TCP.pack(
        segment.source_port,
        segment.destination_port,
        segment.seq,
        segment.ack,
        (_TCP.size + len(options)) // 4 << 4,
        segment.flags,
        segment.window,
        0,
        0,
    )
    data = header + options + segment.payload
    check = checksum(_pseudo_header(source, destination, len(data)) + data)
    return b"%b%b%b" % (data[:_CHECK_AT], check.to_bytes(2), data[_CHECK_AT + 2 :])


def _pseudo_header(source: bytes, destination: bytes, size: int) -> bytes:
    return struct.pack(">4s4sHH", source, destination, PROTOCOL_TCP, size)


def _find_mss(options: bytes) -> int | None:
    """The maximum segment size option, if there is one. Raises Malformed."""
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == _OPTION_END:
            break
        if kind == _OPTION_NOP:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            raise Malformed("a TCP option that does not fit")
        if kind == _OPTION_MSS:
            return int.from_bytes(options[at + 2 : at + size], "big")
        at += size
    return None
