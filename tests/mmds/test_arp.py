"""ARP: who asks, and the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.mmds.arp import Request, build_reply, parse_request
from vmmd.mmds.frames import ETHERTYPE_ARP, Malformed, parse_frame

GUEST = bytes.fromhex("0242c0a80001")
SERVICE = bytes.fromhex("060123456701")
ASKED = bytes.fromhex("0001080006040001") + GUEST + b"\x0a\0\0\1" + bytes(6)
QUESTION = ASKED + b"\xa9\xfe\xa9\xfe"


def test_a_question_is_read() -> None:
    expected = Request(GUEST, b"\x0a\0\0\1", b"\xa9\xfe\xa9\xfe")
    assert parse_request(QUESTION) == expected
    assert parse_request(QUESTION + bytes(18)) == expected


def test_the_answer_says_where_the_address_is() -> None:
    frame = parse_frame(build_reply(parse_request(QUESTION), SERVICE))
    assert (frame.destination, frame.source) == (GUEST, SERVICE)
    assert frame.ethertype == ETHERTYPE_ARP
    assert frame.payload == (
        bytes.fromhex("0001080006040002")
        + SERVICE
        + b"\xa9\xfe\xa9\xfe"
        + GUEST
        + b"\x0a\0\0\1"
    )


@pytest.mark.parametrize("at", range(8))
def test_other_kinds_of_arp_are_malformed(at: int) -> None:
    data = bytearray(QUESTION)
    data[at] ^= 3
    with pytest.raises(Malformed):
        parse_request(bytes(data))


@given(st.binary(max_size=27))
def test_a_short_one_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(data)
