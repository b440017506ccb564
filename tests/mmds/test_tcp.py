"""The TCP of the metadata service, against a client and a bad network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tcp_client import OWN_PORT, PORT, TcpClient
from vmmd.mmds.http import take_request
from vmmd.mmds.segment import Flags, Segment
from vmmd.mmds.tcp import (
    DUPLICATE_ACKS,
    MAX_RETRIES,
    MSS_MAX,
    MSS_MIN,
    RECEIVE_BYTES,
    RTO_MAX_NS,
    RTO_NS,
    Connection,
    State,
    distance,
    is_opening,
    reset_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = 2000 if os.environ.get("CI") else settings().max_examples
STEP_NS = 20_000_000
PATIENCE_STEPS = 20_000
ISS = 0xFFFF_FFF0
SYN = Segment(OWN_PORT, PORT, 1000, 0, Flags.SYN, 65_535, 1460)


def echo(buffer: bytearray) -> bytes | None:
    """Answers a request with the request in brackets."""
    request = take_request(buffer)
    return None if request is None else b"[%b]" % request


@dataclass
class Network:
    """Segments on their way in one direction; reliable when the fates run out.

    A fate: 0 to 99 deliver, 100 to 149 lose, 150 to 199 twice, 200 to 255 late.
    """

    fates: Iterator[int]
    late: list[Segment] = field(default_factory=list)

    def carry(self, segments: list[Segment]) -> list[Segment]:
        """What arrives now of these and of what was held back."""
        arrived, self.late = self.late, []
        for segment in segments:
            fate = next(self.fates, 0)
            if fate < 100:
                arrived.append(segment)
            elif fate < 150:
                continue
            elif fate < 200:
                arrived += [segment, segment]
            else:
                self.late.append(segment)
        return arrived[::-1] if len(arrived) % 2 else arrived


def outgoing(server: Connection, now_ns: int) -> list[Segment]:
    """All that a connection has to send."""
    out = []
    while (segment := server.next_segment(now_ns)) is not None:
        out.append(segment)
        assert len(out) < 1000
    return out


class Conversation:
    """A client and a connection, and what happens on the way between them."""

    def __init__(self, client: TcpClient, fates: bytes) -> None:
        shared = iter(fates)
        self.client = client
        self.server: Connection | None = None
        self._there, self._back = Network(shared), Network(shared)

    def step(self, now_ns: int) -> None:
        """Let both say what they have to say."""
        for segment in self._there.carry(self.client.segments(now_ns)):
            self._deliver(segment, now_ns)
        if self.server is None:
            return
        self.server.tick(now_ns)
        for segment in self._back.carry(outgoing(self.server, now_ns)):
            self.client.receive(segment, now_ns)

    def _deliver(self, segment: Segment, now_ns: int) -> None:
        if self.server is None:
            if is_opening(segment):
                self.server = Connection(segment, ISS, echo, now_ns)
        elif self.server.state is not State.CLOSED:
            self.server.receive(segment, now_ns)


def converse(client: TcpClient, fates: bytes, drain_every: int) -> Connection:
    """Let both talk until the connection is closed; the server."""
    talk = Conversation(client, fates)
    for step in range(PATIENCE_STEPS):
        if step % drain_every == 0:
            client.drain()
        talk.step(step * STEP_NS)
        if talk.server is not None and talk.server.state is State.CLOSED:
            return talk.server
    raise AssertionError("they talk for ever")


@given(
    requests=st.lists(st.integers(0, 600), min_size=1, max_size=3),
    cuts=st.lists(st.integers(9, 900), min_size=1, max_size=3).map(tuple),
    window=st.sampled_from((1, 7, 100, 1000, 65_535)),
    fates=st.binary(max_size=60),
    drain_every=st.integers(1, 3),
)
@settings(max_examples=EXAMPLES)
def test_the_answers_arrive_whole_and_in_order(
    requests: list[int],
    cuts: tuple[int, ...],
    window: int,
    fates: bytes,
    drain_every: int,
) -> None:
    """Split, lost, repeated, reordered; windows that are shut and small ones."""
    window = max(window, sum(requests) // 100)  # or it takes for ever
    stream = b"".join(b"x" * size + b"\n\n" for size in requests)
    expected = b"".join(b"[" + b"x" * size + b"\n\n]" for size in requests)
    client = TcpClient(stream, cuts, window, close_after=len(expected))
    server = converse(client, fates, drain_every)
    assert server.goodbye is None
    assert client.read == expected
    assert client.fin_seen


def established(window: int = 65_535, mss: int | None = 1460) -> Connection:
    """A connection behind its handshake."""
    syn = replace(SYN, mss=mss)
    server = Connection(syn, ISS, echo, 0)
    (synack,) = outgoing(server, 0)
    assert synack.flags == Flags.SYN | Flags.ACK
    assert server.receive(from_client(window=window), 0)
    assert server.state is State.ESTABLISHED
    return server


def from_client(
    seq: int = 0,
    ack: int = 0,
    flags: int = Flags.ACK,
    payload: bytes = b"",
    window: int = 65_535,
) -> Segment:
    """A segment of the client's; numbers count from behind the handshake."""
    numbers = SYN.seq + 1 + seq, (ISS + 1 + ack) & 0xFFFF_FFFF
    return Segment(OWN_PORT, PORT, *numbers, flags, window, None, payload)


def test_the_handshake_tells_our_numbers() -> None:
    server = Connection(SYN, ISS, echo, 0)
    (synack,) = outgoing(server, 0)
    assert (synack.source_port, synack.destination_port) == (PORT, OWN_PORT)
    assert (synack.seq, synack.ack) == (ISS, SYN.seq + 1)
    assert (synack.window, synack.mss) == (RECEIVE_BYTES, MSS_MAX)
    assert not server.ready


def test_a_syn_again_gets_its_answer_again() -> None:
    server = Connection(SYN, ISS, echo, 0)
    first = outgoing(server, 0)
    assert server.receive(SYN, 1)
    assert outgoing(server, 1) == first


def test_a_stray_syn_or_reset_does_not_end_a_connection() -> None:
    server = established()
    for segment in (
        SYN,
        replace(SYN, seq=5),
        from_client(seq=10, flags=Flags.RST),
        from_client(seq=-1, flags=Flags.RST),
        from_client(seq=RECEIVE_BYTES, flags=Flags.RST),
    ):
        assert not server.receive(segment, 0)
        assert server.state is State.ESTABLISHED
        assert all(out.flags == Flags.ACK for out in outgoing(server, 0))
    assert server.receive(from_client(flags=Flags.RST), 0)
    assert server.state is State.CLOSED
    assert server.goodbye is None


def test_a_wrong_answer_to_the_handshake_is_reset() -> None:
    server = Connection(SYN, ISS, echo, 0)
    outgoing(server, 0)
    assert not server.receive(from_client(ack=5), 0)
    assert server.state is State.CLOSED
    assert server.goodbye is not None
    assert server.goodbye.flags == Flags.RST
    assert server.goodbye.seq == (ISS + 6) & 0xFFFF_FFFF


def test_answers_are_cut_to_the_peers_mss() -> None:
    server = established(mss=None)
    server.receive(from_client(payload=b"y" * 1500 + b"\n\n"), 0)
    sizes = [len(out.payload) for out in outgoing(server, 0)]
    assert sizes == [536, 536, 432]


def test_an_acknowledgement_of_what_was_never_sent_is_asked_about() -> None:
    server = established()
    assert not server.receive(from_client(ack=1), 0)
    (ack,) = outgoing(server, 0)
    assert (ack.flags, ack.seq) == (Flags.ACK, (ISS + 1) & 0xFFFF_FFFF)


def test_what_comes_out_of_order_is_asked_for_again() -> None:
    server = established()
    assert not server.receive(from_client(seq=3, payload=b"d\n\n"), 0)
    (ack,) = outgoing(server, 0)
    assert ack.ack == SYN.seq + 1
    assert server.receive(from_client(payload=b"abcd\n\n"), 0)
    (out,) = outgoing(server, 0)
    assert out.payload == b"[abcd\n\n]"


def test_of_an_overlap_only_the_new_part_counts() -> None:
    server = established()
    server.receive(from_client(payload=b"abc"), 0)
    server.receive(from_client(seq=1, payload=b"bcd\n\n"), 0)
    assert outgoing(server, 0)[-1].payload == b"[abcd\n\n]"


def test_a_segment_without_ack_or_far_off_is_not_taken() -> None:
    server = established()
    assert not server.receive(from_client(flags=0, payload=b"a\n\n"), 0)
    assert not server.receive(from_client(seq=RECEIVE_BYTES + 1, payload=b"a"), 0)
    assert not server.receive(from_client(seq=-5, payload=b"a"), 0)
    assert [out.flags for out in outgoing(server, 0)] == [Flags.ACK]


def test_a_lost_answer_is_sent_again_ever_more_slowly_then_reset() -> None:
    server = established()
    server.receive(from_client(payload=b"a\n\n"), 0)
    outgoing(server, 0)
    now_ns, waits = 0, []
    while server.state is not State.CLOSED:
        deadline_ns = server.deadline_ns
        assert deadline_ns is not None
        server.tick(deadline_ns - 1)
        assert not server.ready
        waits.append(deadline_ns - now_ns)
        now_ns = deadline_ns
        server.tick(now_ns)
        again = outgoing(server, now_ns)
        assert again == [] or again[0].payload == b"[a\n\n]"
    assert waits[:3] == [RTO_NS, 2 * RTO_NS, 4 * RTO_NS]
    assert len(waits) == MAX_RETRIES + 1
    assert max(waits) == RTO_MAX_NS
    assert server.goodbye is not None
    assert server.goodbye.flags & Flags.RST


def test_three_duplicate_acknowledgements_do_not_wait_for_the_timer() -> None:
    server = established(mss=100)
    server.receive(from_client(payload=b"a" * 500 + b"\n\n"), 0)
    first = outgoing(server, 0)
    for _ in range(DUPLICATE_ACKS):
        assert not server.ready
        server.receive(from_client(seq=502, ack=0), 0)
    again = outgoing(server, 0)
    assert [out.payload for out in again] == [out.payload for out in first]


def test_a_shut_window_is_probed_until_it_opens() -> None:
    server = established(window=0)
    server.receive(from_client(payload=b"abc\n\n", window=0), 0)
    (ack,) = outgoing(server, 0)
    assert not ack.payload
    now_ns = 0
    for _ in range(3 * MAX_RETRIES):
        assert server.deadline_ns is not None
        now_ns = server.deadline_ns
        server.tick(now_ns)
        (probe,) = outgoing(server, now_ns)
        assert not probe.payload
        assert probe.seq == ISS
        server.receive(from_client(seq=5, window=0), now_ns)
    assert server.progress_ns == 0
    server.receive(from_client(seq=5, window=4), now_ns)
    assert [out.payload for out in outgoing(server, now_ns)] == [b"[abc"]
    server.receive(from_client(seq=5, ack=4, window=100), now_ns)
    assert server.progress_ns == now_ns
    assert [out.payload for out in outgoing(server, now_ns)] == [b"\n\n]"]


def test_an_old_segment_does_not_shut_the_window() -> None:
    server = established()
    server.receive(from_client(payload=b"abc"), 0)
    server.receive(from_client(seq=3, payload=b"\n\n"), 0)
    server.receive(from_client(payload=b"abc\n\n", window=0), 0)
    assert outgoing(server, 0)[-1].payload == b"[abc\n\n]"


def test_what_was_sent_before_a_timeout_may_be_acknowledged_after_it() -> None:
    server = established(mss=100)
    server.receive(from_client(payload=b"a" * 500 + b"\n\n"), 0)
    assert len(outgoing(server, 0)) == 6
    server.receive(from_client(seq=502, ack=100), 0)
    assert not server.ready
    server.tick(RTO_NS)
    again = server.next_segment(RTO_NS)
    assert again is not None
    assert again.seq == (ISS + 101) & 0xFFFF_FFFF
    assert server.receive(from_client(seq=502, ack=504), RTO_NS)
    assert not server.ready
    assert server.deadline_ns is None


def test_an_end_that_is_out_of_place_does_not_count() -> None:
    server = established()
    server.receive(from_client(payload=b"abc"), 0)
    end = Flags.ACK | Flags.FIN
    server.receive(from_client(payload=b"ab", flags=end), 0)
    server.receive(from_client(seq=9, payload=b"a", flags=end), 0)
    server.receive(from_client(seq=3, payload=b"\n\n"), 0)
    assert outgoing(server, 0)[-1].payload == b"[abc\n\n]"
    server.receive(from_client(seq=5, ack=7), 0)
    assert not server.ready


def test_small_windows_are_waited_for_while_something_is_on_its_way() -> None:
    server = established()
    server.receive(from_client(payload=b"a" * 1998 + b"\n\n", window=1462), 0)
    assert [len(out.payload) for out in outgoing(server, 0)] == [1460]
    server.receive(from_client(seq=2000, ack=1460, window=600), 0)
    assert [len(out.payload) for out in outgoing(server, 0)] == [542]


def test_a_request_that_does_not_fit_resets() -> None:
    server = established()
    server.receive(from_client(payload=b"a" * RECEIVE_BYTES), 0)
    assert server.state is State.CLOSED
    assert server.goodbye is not None


def test_more_than_the_window_is_not_taken() -> None:
    server = established()
    server.receive(from_client(payload=b"a" * (RECEIVE_BYTES + 9)), 0)
    assert server.state is State.CLOSED
    assert server.goodbye is not None
    assert server.goodbye.ack == SYN.seq + 1 + RECEIVE_BYTES


def test_requests_of_a_pipeline_are_answered_one_by_one() -> None:
    server = established()
    server.receive(from_client(payload=b"a\n\nb\n\n"), 0)
    assert [out.payload for out in outgoing(server, 0)] == [b"[a\n\n]"]
    server.receive(from_client(seq=6, ack=5), 0)
    assert [out.payload for out in outgoing(server, 0)] == [b"[b\n\n]"]


def test_our_end_follows_the_peers() -> None:
    server = established()
    server.receive(from_client(payload=b"a\n\n", flags=Flags.ACK | Flags.FIN), 0)
    assert [out.payload for out in outgoing(server, 0)] == [b"[a\n\n]"]
    assert not server.receive(from_client(seq=4, payload=b"more"), 0)
    server.receive(from_client(seq=4, ack=5), 0)
    (fin,) = outgoing(server, 0)
    assert fin.flags == Flags.FIN | Flags.ACK
    assert server.deadline_ns is not None
    server.tick(server.deadline_ns)
    assert outgoing(server, 1) == [fin]
    assert server.receive(from_client(seq=4, ack=6), 0)
    assert server.state is State.CLOSED
    assert server.goodbye is None
    assert server.next_segment(0) is None


@pytest.mark.parametrize(
    ("segment", "opens"),
    [
        (SYN, True),
        (replace(SYN, mss=None), True),
        (replace(SYN, mss=MSS_MIN), True),
        (replace(SYN, mss=MSS_MIN - 1), False),
        (replace(SYN, payload=b"x"), False),
        (replace(SYN, flags=Flags.SYN | Flags.ACK), False),
        (replace(SYN, flags=Flags.SYN | Flags.FIN), False),
        (replace(SYN, flags=Flags.SYN | Flags.RST), False),
        (replace(SYN, flags=Flags.SYN | 0xC0), True),  # asks for ECN
        (replace(SYN, flags=Flags.ACK), False),
    ],
)
def test_what_opens_a_connection(segment: Segment, opens: bool) -> None:
    assert is_opening(segment) is opens


def test_what_a_reset_says() -> None:
    assert reset_for(from_client(ack=7)).seq == (ISS + 8) & 0xFFFF_FFFF
    bare = replace(SYN, flags=Flags.SYN | Flags.FIN, payload=b"ab")
    reset = reset_for(bare)
    assert (reset.flags, reset.seq) == (Flags.RST | Flags.ACK, 0)
    assert reset.ack == SYN.seq + 4


@given(st.integers(0, 0xFFFF_FFFF), st.integers(-(1 << 31), (1 << 31) - 1))
def test_distances_wrap(start: int, by: int) -> None:
    assert distance((start + by) & 0xFFFF_FFFF, start) == by


@given(
    st.lists(
        st.builds(
            Segment,
            st.just(OWN_PORT),
            st.just(PORT),
            st.integers(SYN.seq - 3, SYN.seq + 40) | st.integers(0, 0xFFFF_FFFF),
            st.integers(0, 60).map(lambda by: (ISS + by) & 0xFFFF_FFFF),
            st.integers(0, 255),
            st.sampled_from((0, 1, 500, 65_535)),
            st.none(),
            st.sampled_from((b"", b"\n", b"a\n\n", b"b" * 900)),
        ),
        max_size=12,
    )
)
def test_nothing_that_comes_is_fatal(segments: list[Segment]) -> None:
    """Any segments at all: what is kept is bounded, and no call raises."""
    server = Connection(SYN, ISS, echo, 0)
    for now_ns, segment in enumerate(segments):
        if server.state is not State.CLOSED:
            server.receive(segment, now_ns)
        for out in outgoing(server, now_ns):
            assert 0 <= out.window <= RECEIVE_BYTES
        server.tick(now_ns + 10**12)
