"""A TCP client in plain Python: the peer of ``vmmd.mmds.tcp`` in tests.

It sends one stream in segments of chosen sizes, retransmits all that is not
acknowledged at each timeout, keeps what came out of order, and has a receive
window that its reader opens by hand. Written from RFC 9293 and not from the
code under test: numbers are taken modulo 2**32 at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vmmd.mmds.segment import Flags, Segment

PORT = 80
OWN_PORT = 40_000
RTO_NS = 200_000_000
MASK = 0xFFFF_FFFF


def sub(a: int, b: int) -> int:
    """a - b in sequence space, signed."""
    return (a - b + (1 << 31)) % (1 << 32) - (1 << 31)


@dataclass
class TcpClient:
    """``stream`` goes out, ``read`` collects what comes; a FIN follows the stream.

    ``window``: how many bytes are taken before the reader empties the buffer.
    ``cuts``: the sizes of segments, used in turn.
    """

    stream: bytes
    cuts: tuple[int, ...] = (536,)
    window: int = 65_535
    mss: int | None = 1460
    isn: int = 0xFFFF_FF00
    close_after: int = 0
    """How many bytes must have come before the FIN is sent."""
    read: bytearray = field(default_factory=bytearray)
    unread: int = 0
    una: int = 0
    fin_acked: bool = False
    fin_seen: bool = False
    reset: bool = False
    established: bool = False
    _next_in: int = 0
    _early: dict[int, Segment] = field(default_factory=dict)
    _ack_due: bool = False
    _peer_window: int = 0
    _sent_at_ns: int | None = None
    _sent: int = 0  # bytes of the stream that were sent since the last timeout
    _syn_sent: bool = False
    _fin_sent: bool = False

    def segments(self, now_ns: int) -> list[Segment]:
        """All there is to send now."""
        if self.reset:
            return []
        if self._sent_at_ns is not None and now_ns - self._sent_at_ns >= RTO_NS:
            self._syn_sent = self._fin_sent = False
            self._sent = self.una
            self._sent_at_ns = now_ns
        if not self.established:
            return self._syn(now_ns)
        out = self._data(now_ns)
        if self._ack_due and not out:
            out.append(self._segment(Flags.ACK, self._sent))
        self._ack_due = False
        return out

    def drain(self) -> None:
        """The reader takes all that has come; the window is told anew."""
        if self.unread:
            self.unread = 0
            self._ack_due = True

    @property
    def room(self) -> int:
        """The window as it is now."""
        return max(0, self.window - self.unread)

    @property
    def done(self) -> bool:
        """Everything is acknowledged both ways, or the peer has reset."""
        return self.reset or (self.fin_acked and self.fin_seen)

    def receive(self, segment: Segment, now_ns: int) -> None:
        """Take a segment of the server's in."""
        if segment.flags & Flags.RST:
            self.reset = True
            return
        if segment.flags & Flags.SYN:
            self._handshake(segment)
            return
        if not self.established:
            return
        self._take_ack(segment, now_ns)
        self._take_data(segment)

    def _syn(self, now_ns: int) -> list[Segment]:
        if self._syn_sent:
            return []
        self._syn_sent, self._sent_at_ns = True, now_ns
        window = min(self.room, 65_535)
        ports = OWN_PORT, PORT
        return [Segment(*ports, self.isn, 0, Flags.SYN, window, self.mss)]

    def _data(self, now_ns: int) -> list[Segment]:
        out: list[Segment] = []
        while self._sent < len(self.stream) and self._sent - self.una < max(
            self._peer_window, 1
        ):
            room = max(self._peer_window, 1) - (self._sent - self.una)
            size = min(self.cuts[self._sent % len(self.cuts)], room)
            part = self.stream[self._sent : self._sent + size]
            out.append(self._segment(Flags.ACK | Flags.PSH, self._sent, part))
            self._sent += len(part)
        everything = self._sent == len(self.stream)
        if everything and not self._fin_sent and len(self.read) >= self.close_after:
            self._fin_sent = True
            out.append(self._segment(Flags.ACK | Flags.FIN, self._sent))
        unacked = self.una < len(self.stream) or (self._fin_sent and not self.fin_acked)
        if out or not unacked:
            self._sent_at_ns = now_ns if unacked else None
        return out

    def _segment(self, flags: int, at: int, payload: bytes = b"") -> Segment:
        seq = self.isn + 1 + at
        if self.fin_acked:
            seq += 1
        window = min(self.room, 65_535)
        numbers = seq & MASK, self._next_in
        return Segment(OWN_PORT, PORT, *numbers, flags, window, None, payload)

    def _handshake(self, segment: Segment) -> None:
        if segment.ack != (self.isn + 1) & MASK:
            return
        if not self.established:
            self.established = True
            self._next_in = (segment.seq + 1) & MASK
            self._peer_window = segment.window
            self._sent_at_ns = None
        self._ack_due = True

    def _take_ack(self, segment: Segment, now_ns: int) -> None:
        acked = sub(segment.ack, (self.isn + 1 + self.una) & MASK)
        if acked < 0:
            return
        if acked > len(self.stream) - self.una:
            self.fin_acked = True
            acked = len(self.stream) - self.una
        if acked:
            self._sent_at_ns = now_ns
        self.una += acked
        self._sent = max(self._sent, self.una)
        self._peer_window = segment.window

    def _take_data(self, segment: Segment) -> None:
        if not segment.length:
            # A probe is out of place and must be answered.
            self._ack_due |= segment.seq != self._next_in
            return
        self._ack_due = True
        if sub(segment.seq, self._next_in) > self.room:
            return
        self._early[segment.seq] = segment
        progress = True
        while progress:
            progress = False
            for seq, early in sorted(self._early.items()):
                if self._take_in_order(seq, early):
                    progress = True

    def _take_in_order(self, seq: int, segment: Segment) -> bool:
        """Take what is new of a segment; True if something was."""
        before = sub(self._next_in, seq)
        if before < 0:
            return False
        del self._early[seq]
        if before > len(segment.payload):
            return False
        new = segment.payload[before:][: self.room]
        whole = before + len(new) == len(segment.payload)
        self.read += new
        self.unread += len(new)
        self._next_in = (self._next_in + len(new)) & MASK
        if segment.fin and whole and not self.fin_seen:
            self.fin_seen = True
            self._next_in = (self._next_in + 1) & MASK
        return bool(new) or self.fin_seen
