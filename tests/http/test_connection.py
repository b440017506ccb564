"""The wire as Firecracker 1.16.1 speaks it: texts, order, reads, laxness."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.http.connection import Connection, Request, WireReply

DROPPED = "\nAll previous unanswered requests will be dropped."
KEEP_ALIVE = "Server: Firecracker API\r\nConnection: keep-alive\r\n"
NO_CONTENT = f"HTTP/1.1 204 \r\n{KEEP_ALIVE}\r\n".encode()
CONTINUE = f"HTTP/1.1 100 \r\n{KEEP_ALIVE}\r\n".encode()
OLDER_CONTINUE = CONTINUE.replace(b"1.1", b"1.0", 1)
BODY = b'{"vcpu_count":1,"mem_size_mib":64}'
PUT = b"PUT /machine-config HTTP/1.1\r\nContent-Length: 34\r\n\r\n" + BODY
PUT_REQUEST = Request("PUT", "/machine-config", BODY)
GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_REQUEST = Request("GET", "/version", None)


def error(message: str) -> bytes:
    """The whole reply to bytes that are no request."""
    body = f'{{ "error": "{message}{DROPPED}" }}'.encode()
    head = f"HTTP/1.1 400 \r\n{KEEP_ALIVE}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def converse(
    connection: Connection, data: bytes = b"", answer: bytes | None = None
) -> list[Request | bytes]:
    """Everything that comes of ``data``: requests (answered) and raw replies."""
    seen: list[Request | bytes] = []
    connection.receive(data)
    while item := connection.next_request():
        if isinstance(item, WireReply):
            seen.append(item.data)
            continue
        seen.append(item)
        connection.respond(204 if answer is None else 200, answer)
    return seen


def only(data: bytes) -> list[Request | bytes]:
    return converse(Connection(), data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"POST /version HTTP/1.1", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"HEAD /version HTTP/1.1", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"get /version HTTP/1.1", "Invalid HTTP Method: Unsupported HTTP method."),
        (b" /version HTTP/1.1", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"GET /version HTTP/2.0", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET /version HTTP/0.9", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET /version http/1.1", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET /version HTTP/1.1 ", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"PUT /a b HTTP/1.1", "Invalid HTTP Version: Unsupported HTTP version."),
        (b"GET /version", "Invalid request."),
        (b"GET", "Invalid request."),
        (b"\r\nGET /version HTTP/1.1", "Invalid request."),
        (b"GET  HTTP/1.1", "Invalid URI: Empty URI not allowed."),
        (b"GET /\xff HTTP/1.1", "Invalid URI: Cannot parse URI as UTF-8."),
        (b"POST  HTTP/9.9", "Invalid HTTP Method: Unsupported HTTP method."),
        (b"PUT  HTTP/9.9", "Invalid URI: Empty URI not allowed."),
    ],
)
def test_bad_request_lines(data: bytes, message: str) -> None:
    assert only(data + b"\r\n\r\n") == [error(message)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"NoColon", "Header is incorrectly formatted. Key: NoColon"),
        (b"Content-Length: abc", "Invalid value. Key:Content-Length; Value: abc"),
        (b"Content-Length: -1", "Invalid value. Key:Content-Length; Value: -1"),
        (b"Content-Length: -0", "Invalid value. Key:Content-Length; Value: -0"),
        (b"Content-Length:", "Invalid value. Key:Content-Length; Value:"),
        (b"Content-Length: +", "Invalid value. Key:Content-Length; Value: +"),
        (b"content-LENGTH : 1_0", "Invalid value. Key:content-LENGTH ; Value: 1_0"),
        (
            b"Content-Length: 4294967296",
            "Invalid value. Key:Content-Length; Value: 4294967296",
        ),
        (
            "Content-Length: ٣".encode(),
            "Invalid value. Key:Content-Length; Value: ٣",
        ),
        (
            b"Accept-Encoding: identity;q=0",
            "Invalid value. Key:Accept-Encoding; Value:identity;q=0",
        ),
        (
            b"Accept-Encoding: gzip, identity;q=0",
            "Invalid value. Key:Accept-Encoding; Value: identity;q=0",
        ),
        (
            b"Accept-Encoding: *;q=0",
            "Invalid value. Key:Accept-Encoding; Value:*;q=0",
        ),
        (
            b"X: \xff",
            "Header contains invalid characters. "
            "Key: invalid utf-8 sequence of 1 bytes from index 3",
        ),
        (
            b"X: \xe2\x82",
            "Header contains invalid characters. "
            "Key: incomplete utf-8 byte sequence from index 3",
        ),
    ],
)
def test_bad_headers(header: bytes, message: str) -> None:
    data = b"GET /version HTTP/1.1\r\n" + header + b"\r\n\r\n"
    assert only(data) == [error(f"Invalid header. Reason: {message}")]


def test_an_empty_accept_encoding_is_an_invalid_request() -> None:
    data = b"GET /version HTTP/1.1\r\nAccept-Encoding: \r\n\r\n"
    assert only(data) == [error("Invalid request.")]


@pytest.mark.parametrize(
    "header",
    [
        b"Accept-Encoding: gzip, identity",
        b"Accept-Encoding: identity, *;q=0",
        b"Content-Type: image/png",
        b"Content-Type:",
        b"Accept: text/html",
        b"X-Custom: anything: at all",
        b": empty",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked",
        b"Expect: something",
        b"Expect: 100-continue",
        b"Content-Length: +0",
        b"Content-Length: 5\r\nContent-Length: 0",
        b"Host: a\r\nHost: b",
        b"B\xc3\xa4d Name: x",
        b"X: \rbare\n",
    ],
)
def test_headers_that_are_let_through(header: bytes) -> None:
    data = b"GET /version HTTP/1.1\r\n" + header + b"\r\n\r\n"
    assert only(data) == [GET_REQUEST]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://localhost/version", "/version"),
        (b"http://localhost", ""),
        (b"http://", ""),
        (b"http:///version", "/version"),
        (b"HTTP://localhost/version", ""),
        (b"//version", "//version"),
        (b"/version/", "/version/"),
        (b"/version?x=1", "/version?x=1"),
        (b"/version#a", "/version#a"),
        (b"/%76ersion", "/%76ersion"),
        (b"*", ""),
        (b"version", ""),
        ("/drives/é".encode(), "/drives/é"),
        (b"/a\tb\x7f\x00", "/a\tb\x7f\x00"),
    ],
)
def test_request_targets(target: bytes, path: str) -> None:
    data = b"GET " + target + b" HTTP/1.0\r\n\r\n"
    assert only(data) == [Request("GET", path, None)]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_every_method_may_have_a_body(method: str) -> None:
    data = method.encode() + b" /x HTTP/1.1\r\nContent-Length:2\r\n\r\n{}"
    assert only(data) == [Request(method, "/x", b"{}")]


def test_odd_spelling_of_content_length() -> None:
    for header in (
        b"cOnTeNt-LeNgTh:   34  ",
        b"Content-Length : 034",
        b"content-length:+34",
    ):
        data = b"PUT /machine-config HTTP/1.1\r\n" + header + b"\r\n\r\n" + BODY
        assert only(data) == [PUT_REQUEST]


def test_bare_line_feeds_end_no_line() -> None:
    assert only(b"GET /version HTTP/1.1\n\n") == []
    assert only(b"GET /version HTTP/1.1\r\nHost: a\n\r\n") == []


def test_replies() -> None:
    connection = Connection()
    connection.receive(GET * 4)
    seen = []
    for status, body, deprecated in (
        (204, None, False),
        (204, None, True),
        (200, b'{"a":1}', False),
        (400, b"{}", True),
    ):
        assert connection.next_request() == GET_REQUEST
        seen.append(connection.respond(status, body, deprecated=deprecated))
    json = "Content-Type: application/json\r\nContent-Length: "
    assert seen == [
        NO_CONTENT,
        f"HTTP/1.1 204 \r\n{KEEP_ALIVE}Deprecation: true\r\n\r\n".encode(),
        f'HTTP/1.1 200 \r\n{KEEP_ALIVE}{json}7\r\n\r\n{{"a":1}}'.encode(),
        f"HTTP/1.1 400 \r\n{KEEP_ALIVE}Deprecation: true\r\n{json}2\r\n\r\n{{}}".encode(),
    ]


def test_an_answer_without_a_request_is_a_bug() -> None:
    with pytest.raises(h11.LocalProtocolError):
        Connection().respond(204)


def test_a_version_1_0_request_keeps_the_connection() -> None:
    connection = Connection()
    assert converse(connection, b"GET /version HTTP/1.0\r\n\r\n") == [GET_REQUEST]
    assert not connection.closing
    assert converse(connection, GET) == [GET_REQUEST]


@pytest.mark.parametrize("header", [b"Connection: close", b"connection:Close "])
def test_close_is_honoured_after_the_reply(header: bytes) -> None:
    connection = Connection()
    connection.receive(b"GET /version HTTP/1.1\r\n" + header + b"\r\n\r\n")
    assert connection.next_request() == GET_REQUEST
    assert not connection.closing
    connection.respond(204)
    assert connection.closing


def test_expect_continue() -> None:
    head, body = PUT[: -len(BODY)], PUT[-len(BODY) :]
    head = head.replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1)
    connection = Connection()
    assert converse(connection, head) == [CONTINUE]
    assert converse(connection, body) == [PUT_REQUEST]
    assert only(head + body) == [CONTINUE, PUT_REQUEST]
    older = (head + body).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    assert only(older) == [OLDER_CONTINUE, PUT_REQUEST]


def test_an_interim_reply_goes_before_the_answers_of_its_read() -> None:
    put = PUT.replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1)
    assert only(GET + put) == [CONTINUE, GET_REQUEST, PUT_REQUEST]


@pytest.mark.parametrize("size", [51_201, 99_999, 4_294_967_295])
def test_bodies_over_the_limit_are_refused_by_their_length(size: int) -> None:
    data = (
        f"PUT /mmds HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
    )
    message = (
        f"Request payload with size {size} is larger than the limit of 51200 "
        "allowed by server."
    )
    assert only(data.encode()) == [error(message)]


def test_a_body_of_the_limit() -> None:
    body = b"x" * 51_200
    data = b"PUT /mmds HTTP/1.1\r\nContent-Length: 51200\r\n\r\n" + body
    assert only(data + GET) == [Request("PUT", "/mmds", body), GET_REQUEST]


def test_the_limit_can_be_set() -> None:
    data = b"PUT /x HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345"
    assert converse(Connection(5), data) == [Request("PUT", "/x", b"12345")]
    refused, *_ = converse(Connection(4), data)
    assert isinstance(refused, bytes)
    assert b"size 5 is larger than the limit of 4 " in refused


def test_lines_that_just_fit() -> None:
    path = "/" + "a" * 1008
    data = f"GET {path} HTTP/1.1\r\n\r\n".encode()
    assert only(data) == [Request("GET", path, None)]
    data = b"GET /version HTTP/1.1\r\nX: " + b"b" * 1019 + b"\r\n\r\n"
    assert only(data) == [GET_REQUEST]


@pytest.mark.parametrize("size", [1009, 2000])
def test_a_request_line_too_long_is_refused_read_by_read(size: int) -> None:
    data = b"GET /" + b"a" * size + b" HTTP/1.1\r\n\r\n"
    assert only(data) == [error("Invalid request.")] * 2


def test_a_header_line_too_long_is_shown() -> None:
    data = b"GET /version HTTP/1.1\r\nX-Long: " + b"b" * 1100 + b"\r\n\r\n"
    shown = "X-Long: " + "b" * 1016
    shown_error = error(
        f"Invalid header. Reason: Invalid content length. Header: {shown}"
    )
    # The buffer keeps what it held, so that 23 bytes at a time are lost until
    # the rest of the line fits; then the request is answered after all.
    assert only(data) == [*[shown_error] * 4, GET_REQUEST]


def test_pipelined_requests_are_answered_in_order() -> None:
    assert only(GET + PUT + GET) == [GET_REQUEST, PUT_REQUEST, GET_REQUEST]


def test_an_error_drops_the_other_requests_of_its_read() -> None:
    refused = error("Invalid HTTP Method: Unsupported HTTP method.")
    assert only(GET + b"BREW / HTTP/1.1\r\n\r\n" + GET) == [refused]


def test_requests_of_an_earlier_read_are_not_dropped() -> None:
    refused = error("Invalid HTTP Method: Unsupported HTTP method.")
    whole = 1024 // len(PUT)
    data = PUT * (whole + 1) + b"BREW / HTTP/1.1\r\n\r\n"
    assert only(data) == [*[PUT_REQUEST] * whole, refused]


def test_after_a_bad_header_more_headers_are_awaited() -> None:
    connection = Connection()
    bad = b"GET /version HTTP/1.1\r\nNoColon\r\n\r\n"
    assert len(converse(connection, bad)) == 1
    line = "GET /version HTTP/1.1"
    assert converse(connection, GET) == [
        error(f"Invalid header. Reason: Header is incorrectly formatted. Key: {line}")
    ]
    assert converse(connection, b"\r\n") == [GET_REQUEST]


def test_a_refused_request_line_leaves_the_connection_usable() -> None:
    connection = Connection()
    assert len(converse(connection, b"BREW / HTTP/1.1\r\n\r\n")) == 1
    assert converse(connection, GET) == [GET_REQUEST]


STREAM = b"".join(
    (
        GET,
        PUT,
        b"PATCH http://x/vm HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"PUT /mmds HTTP/1.1\r\nContent-Length: 2500\r\nX: " + b"y" * 900 + b"\r\n\r\n",
        b"\r\n" * 1250,
        b"DELETE /drives/a HTTP/1.1\r\n\r\n",
    )
)


def requests_of(pieces: list[bytes]) -> list[Request | bytes]:
    """The requests that come of a stream in pieces; interim replies left out."""
    connection = Connection()
    seen = [item for piece in pieces for item in converse(connection, piece)]
    return [item for item in seen if item != OLDER_CONTINUE]


def test_a_stream_split_anywhere_gives_the_same_requests() -> None:
    whole = requests_of([STREAM])
    assert len(whole) == 5
    for at in range(len(STREAM) + 1):
        assert requests_of([STREAM[:at], STREAM[at:]]) == whole
    assert requests_of([bytes([byte]) for byte in STREAM]) == whole


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_in_any_pieces_gives_the_same_requests(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges)]
    assert requests_of(pieces) == requests_of([STREAM])


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([GET, PUT, b"\r\n", b":", b" "]))
)
def test_no_bytes_are_unanswerable(pieces: list[bytes]) -> None:
    """Whatever comes, it is a request that h11 agrees is one, or a 400."""
    connection = Connection()
    for piece in pieces:
        for item in converse(connection, piece, b"{}"):
            if isinstance(item, bytes):
                interim = item in (CONTINUE, OLDER_CONTINUE)
                assert interim or item.startswith(b"HTTP/1.1 400 \r\n")


TOKENS = st.text(st.characters(exclude_characters=" \r\n", exclude_categories=["Cs"]))


@given(
    TOKENS.filter(lambda text: 0 < len(text.encode()) < 900), st.binary(max_size=3000)
)
def test_any_target_and_body_come_through(target: str, body: bytes) -> None:
    head = f"PUT /{target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert only(head + body + GET) == [
        Request("PUT", f"/{target}", body or None),
        GET_REQUEST,
    ]
