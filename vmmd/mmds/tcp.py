"""The serving half of a TCP connection (RFC 9293), without I/O.

Segments go in by ``receive``, those to send come out of ``next_segment``, and
``tick`` is called when ``deadline_ns`` has passed. The peer is the guest itself:
nothing is lost on the way but what a full ring holds back, so there is no
congestion control, what comes out of order is asked for again and not kept, and
lost segments are sent again from the first on.

Positions count from the initial sequence number and never wrap: 0 is the SYN,
1 the first byte.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from .segment import Flags, Segment

if TYPE_CHECKING:
    from collections.abc import Callable

RECEIVE_BYTES = 2500
MSS_DEFAULT = 536
MSS_MIN = 100
MSS_MAX = 1460
RTO_NS = 300_000_000
RTO_MAX_NS = 4_800_000_000
MAX_RETRIES = 15
DUPLICATE_ACKS = 3
RESET_WINDOW = 10_000
_MASK = 0xFFFF_FFFF
_HALF = 0x8000_0000


class State(Enum):
    """Where a connection is. CLOSED: to be forgotten."""

    SYN_RECEIVED = auto()
    ESTABLISHED = auto()
    CLOSED = auto()


def distance(a: int, b: int) -> int:
    """How far sequence number ``a`` is after ``b``; negative if before."""
    return ((a - b + _HALF) & _MASK) - _HALF


def reset_for(segment: Segment) -> Segment:
    """The reset that answers a segment which belongs to no connection."""
    if segment.flags & Flags.ACK:
        seq, ack, flags = segment.ack, 0, Flags.RST
    else:
        ack = (segment.seq + segment.length) & _MASK
        seq, flags = 0, Flags.RST | Flags.ACK
    ports = segment.destination_port, segment.source_port
    return Segment(*ports, seq, ack, flags, RESET_WINDOW)


def is_opening(segment: Segment) -> bool:
    """Whether a segment is a SYN that opens a connection: no data, a sane MSS."""
    control = segment.flags & (Flags.SYN | Flags.ACK | Flags.RST | Flags.FIN)
    sane = segment.mss is None or segment.mss >= MSS_MIN
    return control == Flags.SYN and not segment.payload and sane


class Connection:
    """A connection that a SYN opened, for which ``is_opening`` holds.

    ``answer(buffer)`` takes a whole request off the front of the buffer and
    returns what to send, or None if none is whole yet; it is called when the
    answer before it has been acknowledged. A request that does not fit 2,500
    bytes resets the connection. ``iss`` is the initial sequence number.

    When ``state`` is CLOSED, ``goodbye`` may hold a last segment to send.
    """

    def __init__(
        self,
        syn: Segment,
        iss: int,
        answer: Callable[[bytearray], bytes | None],
        now_ns: int,
    ) -> None:
        self.state = State.SYN_RECEIVED
        self.goodbye: Segment | None = None
        self.progress_ns = now_ns
        self._ports = syn.destination_port, syn.source_port
        self._answer = answer
        self._irs = syn.seq
        self._iss = iss
        self._mss = min(syn.mss or MSS_DEFAULT, MSS_MAX)
        self._buffer = bytearray()
        self._next_in = 1  # position in the peer's stream
        self._fin_in = False
        self._ack_due = False
        self._out = b""
        self._out_at = 1  # the position of the first byte of _out
        self._fin_out = False
        self._una = 0  # the first position that is not acknowledged
        self._nxt = 0  # the next to send
        self._top = 0  # behind the last that was ever sent
        self._window = syn.window
        self._window_from = (1, 0)  # the segment that said so: its seq, its ack
        self._duplicates = 0
        self._probing = False
        self._rto_ns = RTO_NS
        self._retries = 0
        self._timer_ns = now_ns

    @property
    def deadline_ns(self) -> int | None:
        """When to call ``tick``; None: only a segment can change anything."""
        waiting = self._nxt > self._una or self._blocked
        return self._timer_ns + self._rto_ns if waiting else None

    @property
    def ready(self) -> bool:
        """Whether ``next_segment`` has something to send."""
        if self.state is State.SYN_RECEIVED:
            return self._nxt == 0
        if self.state is State.CLOSED:
            return False
        return self._ack_due or self._probing or self._fin_due or self._sendable() > 0

    def receive(self, segment: Segment, now_ns: int) -> bool:
        """Take a segment in. False: it was out of the ordinary."""
        usual = self._take(segment, now_ns)
        if self.state is State.ESTABLISHED:
            self._serve(now_ns)
        return usual

    def tick(self, now_ns: int) -> None:
        """Send again what has not been acknowledged in time, or give up."""
        deadline_ns = self.deadline_ns
        if deadline_ns is None or now_ns < deadline_ns:
            return
        self._retries += 1
        if self._retries > MAX_RETRIES:
            self.abort()
            return
        self._rto_ns = min(2 * self._rto_ns, RTO_MAX_NS)
        self._timer_ns = now_ns
        self._nxt = self._una
        self._probing = self._blocked

    def abort(self) -> None:
        """Reset the connection."""
        seq = self._iss + self._top
        flags = Flags.RST | Flags.ACK
        self.goodbye = self._segment(seq, flags, window=RESET_WINDOW)
        self.state = State.CLOSED

    def next_segment(self, now_ns: int) -> Segment | None:
        """The next segment to send, if there is one."""
        if not self.ready:
            return None
        flags, payload, mss = Flags.ACK, b"", None
        seq = self._iss + self._nxt
        if self.state is State.SYN_RECEIVED:
            flags, mss, taken = Flags.SYN | Flags.ACK, MSS_MAX, 1
        elif (taken := self._sendable()) > 0:
            start = self._nxt - self._out_at
            payload = self._out[start : start + taken]
            flags |= Flags.PSH if start + taken == len(self._out) else 0
        elif self._fin_due:
            flags, taken = Flags.FIN | Flags.ACK, 1
        else:
            # A probe is out of place, so that the peer must answer.
            seq = self._iss + (self._una - 1 if self._probing else self._top)
        self._sent(taken, now_ns)
        return self._segment(seq, flags, payload=payload, mss=mss)

    def _segment(
        self,
        seq: int,
        flags: int,
        *,
        payload: bytes = b"",
        mss: int | None = None,
        window: int | None = None,
    ) -> Segment:
        ack = self._irs + self._next_in
        room = self._room if window is None else window
        numbers = seq & _MASK, ack & _MASK
        return Segment(*self._ports, *numbers, flags, room, mss, payload)

    def _sent(self, taken: int, now_ns: int) -> None:
        if taken and self._nxt == self._una:
            self._timer_ns = now_ns
        self._nxt += taken
        self._top = max(self._top, self._nxt)
        self._ack_due = self._probing = False

    @property
    def _room(self) -> int:
        return RECEIVE_BYTES - len(self._buffer)

    @property
    def _end(self) -> int:
        """The position behind the last byte to send, where a FIN would be."""
        return self._out_at + len(self._out)

    @property
    def _fin_due(self) -> bool:
        return self._fin_out and self._nxt == self._end

    @property
    def _blocked(self) -> bool:
        """Whether there is data and the peer's window is shut."""
        return self._window == 0 and self._una < self._end and bool(self._out)

    def _sendable(self) -> int:
        """How many bytes the next segment of data has; 0: none now.

        A window that cuts a segment short is waited for while an
        acknowledgement is still to come (against silly windows).
        """
        left = self._end - self._nxt
        size = min(self._mss, left, self._una + self._window - self._nxt)
        cut = size < min(self._mss, left)
        return 0 if size <= 0 or (cut and self._nxt > self._una) else size

    def _take(self, segment: Segment, now_ns: int) -> bool:
        """RFC 9293, 3.10.7.4, in its order of checks."""
        offset = distance(segment.seq, (self._irs + self._next_in) & _MASK)
        if segment.flags & Flags.RST:
            return self._take_reset(offset)
        if segment.flags & Flags.SYN:
            return self._take_syn(segment)
        if offset > self._room or offset + segment.length < 0:
            self._ack_due = True
            return False
        if not segment.flags & Flags.ACK or not self._take_ack(segment, now_ns):
            return False
        return self._take_data(segment, offset, now_ns)

    def _take_reset(self, offset: int) -> bool:
        """A reset must be exactly in place; one near it is asked about (RFC 5961)."""
        if offset == 0:
            self.state = State.CLOSED
            return True
        if 0 < offset < self._room:
            self._ack_due = True
        return False

    def _take_syn(self, segment: Segment) -> bool:
        """A SYN again: ours got lost. Any other is asked about (RFC 5961)."""
        if self.state is State.SYN_RECEIVED and segment.seq == self._irs:
            self._nxt = 0
            return is_opening(segment)
        self._ack_due = True
        return False

    def _take_ack(self, segment: Segment, now_ns: int) -> bool:
        """Note what has arrived at the peer. False: the segment counts no more."""
        acked = distance(segment.ack, (self._iss + self._una) & _MASK)
        if acked > self._top - self._una or self._refused(acked):
            if self.state is State.SYN_RECEIVED:
                self.goodbye = reset_for(segment)
                self.state = State.CLOSED
            self._ack_due = True
            return False
        self._retries = 0
        if acked > 0:
            self._advance(self._una + acked, now_ns)
        elif acked == 0:
            self._count_duplicate(segment)
        self._take_window(segment, now_ns)
        return True

    def _refused(self, acked: int) -> bool:
        """Whether a handshake's answer acknowledges something else."""
        return self.state is State.SYN_RECEIVED and acked != 1

    def _advance(self, una: int, now_ns: int) -> None:
        self.state = State.ESTABLISHED
        self._una = una
        self._nxt = max(self._nxt, una)
        self._duplicates = 0
        self._rto_ns = RTO_NS
        self._timer_ns = self.progress_ns = now_ns
        if una >= self._end:
            self._out, self._out_at = b"", self._end
        if self._fin_out and una > self._end:
            self.state = State.CLOSED

    def _count_duplicate(self, segment: Segment) -> None:
        """After three of them, send again without waiting for the timer."""
        if segment.length or segment.window != self._window or self._top == self._una:
            return
        self._duplicates += 1
        if self._duplicates == DUPLICATE_ACKS and self._window:
            self._nxt = self._una

    def _take_window(self, segment: Segment, now_ns: int) -> None:
        """The peer's window, unless a later segment has told it already."""
        offset = distance(segment.seq, (self._irs + self._next_in) & _MASK)
        acked = distance(segment.ack, (self._iss + self._una) & _MASK)
        told = self._next_in + offset, self._una + acked
        if told < self._window_from:
            return
        if bool(self._window) != bool(segment.window):
            self._rto_ns, self._timer_ns = RTO_NS, now_ns
        self._window = segment.window
        self._window_from = told

    def _take_data(self, segment: Segment, offset: int, now_ns: int) -> bool:
        if not segment.length:
            return True
        self._ack_due = True
        if offset > 0 or self._fin_in:
            return False
        new = segment.payload[-offset:] if offset else segment.payload
        fits = new[: self._room]
        self._buffer += fits
        self._next_in += len(fits)
        if fits:
            self.progress_ns = now_ns
        last = -offset <= len(segment.payload) and len(fits) == len(new)
        if segment.fin and last:
            self._fin_in = True
            self._next_in += 1
        return bool(fits) or self._fin_in

    def _serve(self, now_ns: int) -> None:
        """Answer the next request, if the last answer has arrived; then the end."""
        if self._out or self._fin_out:
            return
        reply = self._answer(self._buffer)
        if reply is not None:
            self._out = reply
            self._timer_ns = now_ns
        elif not self._room:
            self.abort()
        elif self._fin_in:
            self._fin_out = True
