"""The connections of one interface to the service's port."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from .segment import Flags, Segment, parse_segment
from .tcp import Connection, State, is_opening, reset_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from .counters import Counters
    from .frames import Packet

PORT = 80
MAX_CONNECTIONS = 30
MAX_PENDING_RESETS = 100
IDLE_NS = 10_000_000_000
"""After so long without progress a connection may make room for another."""

# The guest's address and port.
Peer: TypeAlias = tuple[bytes, int]


class Listener:
    """Segments in, segments out. ``answer(request, now_ns)`` makes a reply."""

    def __init__(
        self,
        answer: Callable[[bytearray, int], bytes | None],
        initial_seq: Callable[[], int],
        counters: Counters,
    ) -> None:
        self._answer = answer
        self._initial_seq = initial_seq
        self._counters = counters
        self._connections: dict[Peer, Connection] = {}
        self._resets: deque[tuple[Peer, Segment]] = deque()
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._connections)

    def receive(self, packet: Packet, now_ns: int) -> None:
        """Take a packet to the service's address in. Raises Malformed."""
        segment = parse_segment(packet)
        self._now_ns = now_ns
        peer = packet.source, segment.source_port
        if segment.destination_port != PORT:
            self._counters.rx_accepted_err += 1
            self._refuse(peer, segment)
            return
        self._counters.rx_count += 1
        connection = self._connections.get(peer)
        if connection is not None:
            if not connection.receive(segment, now_ns):
                self._counters.rx_accepted_unusual += 1
            self._settle(peer, connection)
        elif is_opening(segment):
            self._open(peer, segment)
        else:
            self._counters.rx_accepted_unusual += 1
            self._refuse(peer, segment)

    def next_segment(self) -> tuple[Peer, Segment] | None:
        """The next segment to send and to whom: resets first, then in turn."""
        if self._resets:
            return self._resets.popleft()
        for peer, connection in self._connections.items():
            segment = connection.next_segment(self._now_ns)
            if segment is not None:
                # To the end of the queue, so that none can keep the others off.
                self._connections[peer] = self._connections.pop(peer)
                return peer, segment
        return None

    def tick(self, now_ns: int) -> None:
        """Look at every connection's timer."""
        self._now_ns = now_ns
        for peer, connection in list(self._connections.items()):
            connection.tick(now_ns)
            self._settle(peer, connection)

    def deadline_ns(self) -> int | None:
        """When the first timer ends."""
        deadlines = (c.deadline_ns for c in self._connections.values())
        return min((at for at in deadlines if at is not None), default=None)

    def _open(self, peer: Peer, syn: Segment) -> None:
        if len(self._connections) >= MAX_CONNECTIONS and not self._evict():
            self._counters.rx_accepted_unusual += 1
            self._refuse(peer, syn)
            return
        self._counters.connections_created += 1
        self._connections[peer] = Connection(
            syn,
            self._initial_seq(),
            lambda buffer: self._answer(buffer, self._now_ns),
            self._now_ns,
        )

    def _evict(self) -> bool:
        """Make room: reset the connection that has been idle longest, if any."""
        peer, connection = min(
            self._connections.items(), key=lambda item: item[1].progress_ns
        )
        if self._now_ns - connection.progress_ns < IDLE_NS:
            return False
        connection.abort()
        self._settle(peer, connection)
        return True

    def _settle(self, peer: Peer, connection: Connection) -> None:
        """Forget a connection that is over, and send what it leaves."""
        if connection.state is not State.CLOSED:
            return
        del self._connections[peer]
        self._counters.connections_destroyed += 1
        if connection.goodbye is not None:
            self._queue(peer, connection.goodbye)

    def _refuse(self, peer: Peer, segment: Segment) -> None:
        if not segment.flags & Flags.RST:
            self._queue(peer, reset_for(segment))

    def _queue(self, peer: Peer, reset: Segment) -> None:
        if len(self._resets) < MAX_PENDING_RESETS:
            self._resets.append((peer, reset))
