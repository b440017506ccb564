"""HTTP of the guest: framing, every refusal's text, a reply's bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.mmds.http import JSON, TEXT, Refused, Reply, Request, parse, take_request

LINE = b"GET /a HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (b"GET /a HTTP/1.1\r\n\r\n", Request(b"GET", "/a", b"HTTP/1.1")),
        (b"PUT /a HTTP/1.0\r\n\r\n", Request(b"PUT", "/a", b"HTTP/1.0")),
        (b"GET http://h:80/a HTTP/1.1\r\n\r\n", Request(b"GET", "/a", b"HTTP/1.1")),
        (b"GET http://h HTTP/1.1\r\n\r\n", Request(b"GET", "", b"HTTP/1.1")),
        (b"GET http:// HTTP/1.1\r\n\r\n", Request(b"GET", "", b"HTTP/1.1")),
        (b"GET a HTTP/1.1\r\n\r\n", Request(b"GET", "", b"HTTP/1.1")),
        (
            LINE + b"Accept: application/json\r\n\r\n",
            Request(b"GET", "/a", b"HTTP/1.1", JSON),
        ),
        (
            LINE + b"ACCEPT :  application/json \r\nAccept: */*\r\n\r\n",
            Request(b"GET", "/a", b"HTTP/1.1", JSON),
        ),
        (
            LINE + b"Accept: application/json\r\nAccept: text/plain\r\n\r\n",
            Request(b"GET", "/a", b"HTTP/1.1", TEXT),
        ),
        (
            LINE + b"Host: h\r\nX-Y:  z \r\nX-Y: w\r\nContent-Length: +0\r\n\r\n",
            Request(b"GET", "/a", b"HTTP/1.1", TEXT, {"Host": "h", "X-Y": "w"}),
        ),
        (
            LINE + b"Expect: x\r\nTransfer-Encoding: gzip\r\nContent-Type: y\r\n"
            b"Server: z\r\nAccept-Encoding: gzip, *;q=0, identity\r\n\r\n",
            Request(b"GET", "/a", b"HTTP/1.1"),
        ),
    ],
)
def test_what_is_a_request(data: bytes, request_: Request) -> None:
    assert parse(data) == request_


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"\n\n", 400, "Invalid request."),
        (b"GET / HTTP/1\r\n\r\n", 400, "Invalid request."),
        (b"GET /aaaaaaaaaaaaa\r\n\r\n", 400, "Invalid request."),
        (b"HEAD / HTTP/1.1\r\n\r\n", 501, "Unsupported HTTP method."),
        (b"get / HTTP/1.1\r\n\r\n", 501, "Unsupported HTTP method."),
        (b"GET  HTTP/1.1\r\n\r\n", 400, "Empty URI not allowed."),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "Cannot parse URI as UTF-8."),
        (b"GET / HTTP/2.0\r\n\r\n", 501, "Unsupported HTTP version."),
        (b"GET / HTTP/1.1 \r\n\r\n", 501, "Unsupported HTTP version."),
        (
            LINE + b"no colon\r\n\r\n",
            400,
            "Header is incorrectly formatted. Key: no colon",
        ),
        (LINE + b"\xff: x\r\n\r\n", 400, "Invalid request."),
        (LINE + b"a: x\r\n\n", 400, "Invalid request."),
        (
            LINE + b"Content-Length: -1\r\n\r\n",
            400,
            "Invalid value. Key:Content-Length; Value: -1",
        ),
        (LINE + b"Content-Length: 1\r\n\r\n", 400, "Invalid request."),
        (LINE + b"Accept-Encoding:\r\n\r\n", 400, "Invalid request."),
        (
            LINE + b"Accept-Encoding: gzip, identity;q=0\r\n\r\n",
            400,
            "Invalid value. Key:Accept-Encoding; Value: identity;q=0",
        ),
        (
            LINE + b"Accept-Encoding: *;q=0\r\n\r\n",
            400,
            "Invalid value. Key:Accept-Encoding; Value:*;q=0",
        ),
    ],
)
def test_what_is_refused(data: bytes, status: int, text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(data)
    assert (caught.value.status, str(caught.value)) == (status, text)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda x: LINE + x))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with suppress(Refused):
        assert parse(data + b"\r\n\r\n").accept in (TEXT, JSON)


@pytest.mark.parametrize(
    ("data", "taken", "left"),
    [
        (b"", None, b""),
        (b"a\r\nb\r\n", None, b"a\r\nb\r\n"),
        (b"a\r\n\r\nrest", b"a\r\n\r\n", b"rest"),
        (b"a\n\nb\r\n\r\n", b"a\n\n", b"b\r\n\r\n"),
        (b"a\r\n\r\nb\n\n", b"a\r\n\r\n", b"b\n\n"),
        (b"a\n\r\n", b"a\n\r\n", b""),
    ],
)
def test_where_a_request_ends(data: bytes, taken: bytes | None, left: bytes) -> None:
    buffer = bytearray(data)
    assert take_request(buffer) == taken
    assert buffer == left


def test_a_reply_on_the_wire() -> None:
    reply = Reply(200, "é", JSON, ("Allow: GET, PUT",))
    assert reply.encode(b"HTTP/1.0") == (
        b"HTTP/1.0 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        b"Allow: GET, PUT\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n\xc3\xa9"
    )


def test_headers_are_found_by_any_spelling() -> None:
    request = Request(b"GET", "/", b"HTTP/1.1", TEXT, {"X-a": "1", "x-B": "2"})
    assert request.header("x-b", "x-a") == ("X-a", "1")
    assert request.header("x-b") == ("x-B", "2")
    assert request.header("x-c") is None
