"""One client's connection without its socket: bytes in, requests; replies, bytes.

h11 keeps the protocol (framing, the order of request and reply, what a reply
must look like); in front of it ``intake`` refuses what Firecracker's HTTP
library refuses, in its words, and lets through what it lets through. h11 is
therefore shown a request only once it is whole, in a plain spelling.
"""

from __future__ import annotations

from collections import deque

import h11

from vmmd.frozen import dataclass
from vmmd.http.intake import MAX_PAYLOAD_SIZE, Incoming, Intake

_SERVER = (b"Server", b"Firecracker API")
_KEEP_ALIVE = (b"Connection", b"keep-alive")
_DEPRECATION = (b"Deprecation", b"true")
_JSON = (b"Content-Type", b"application/json")

_CONTINUE = b" 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
_ERROR_HEAD = (
    "HTTP/1.1 400 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
    "Content-Type: application/json\r\nContent-Length: "
)
_DROPPED = "\nAll previous unanswered requests will be dropped."

TOO_MANY_CONNECTIONS = (
    b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n"
    b'Content-Length: 40\r\n\r\n{ "error": "Too many open connections" }'
)
"""What a connection over the limit is told before it is closed."""

_NO_CONTENT = h11.Response(status_code=204, headers=[_SERVER, _KEEP_ALIVE], reason=b"")
_END = h11.EndOfMessage()


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. ``target`` is its absolute path, "" if it has none."""

    method: str
    target: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class WireReply:
    """Bytes to send now: an interim 100, or the refusal of what was no request."""

    data: bytes


class Connection:
    """A client's connection: ``receive``, then ``next_request`` until None.

    Each Request must be answered by ``respond`` before the next is asked for.
    ``closing`` says that the request answered last asked to close after it.
    """

    def __init__(self, max_payload_size: int = MAX_PAYLOAD_SIZE) -> None:
        self._intake = Intake(max_payload_size)
        self._ready: deque[Incoming | WireReply] = deque()
        self._h11 = h11.Connection(h11.SERVER)
        self._last_asked = False
        self.closing = False

    def receive(self, data: bytes) -> None:
        """Take bytes that the client sent, split anywhere."""
        self._intake.feed(data)

    def next_request(self) -> Request | WireReply | None:
        """The next request to answer or bytes to send; None: more is needed."""
        while not self._ready:
            batch = self._intake.read()
            if batch is None:
                return None
            interim = (WireReply(version + _CONTINUE) for version in batch.continues)
            self._ready.extend(interim)
            self._ready.extend(batch.requests)
            if batch.refusal:
                self._ready.append(refusal(batch.refusal))
        item = self._ready.popleft()
        return item if isinstance(item, WireReply) else self._present(item)

    def respond(
        self, status: int, body: bytes | None = None, *, deprecated: bool = False
    ) -> bytes:
        """The bytes that answer the last Request.

        A body is JSON; without one the reply has no Content headers.
        Raises h11.LocalProtocolError if no request waits for an answer.
        """
        if body is None and status == 204 and not deprecated:
            head = _NO_CONTENT
        else:
            head = _head(status, body, deprecated)
        data = self._h11.send(head) or b""
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
        data += self._h11.send(_END) or b""
        self._h11.start_next_cycle()
        self.closing = self._last_asked
        return data

    def _present(self, incoming: Incoming) -> Request:
        """Show a request to h11, and what h11 saw to the caller."""
        self._last_asked = incoming.closes
        self._h11.receive_data(_plain(incoming))
        event = self._h11.next_event()
        if not isinstance(event, h11.Request):
            raise RuntimeError(f"h11 sees {event!r} in place of a request")
        body = b"".join(self._body())
        return Request(event.method.decode(), incoming.path, body or None)

    def _body(self) -> list[bytes]:
        parts: list[bytes] = []
        while not isinstance(event := self._h11.next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise RuntimeError(f"h11 sees {event!r} in place of a body")
            parts.append(bytes(event.data))
        return parts


def _plain(incoming: Incoming) -> bytes:
    """The request spelled so that h11 and micro-http mean the same by it.

    The client's other headers mean nothing to the API, and some of them
    (Transfer-Encoding, a second Content-Length) mean more to h11 than they may.
    """
    head = f" {_visible(incoming.path) or '*'} HTTP/1.1\r\nHost: localhost\r\n"
    if incoming.body:
        head += f"Content-Length: {len(incoming.body)}\r\n"
    return b"".join((incoming.method, head.encode("ascii"), b"\r\n", incoming.body))


def _visible(path: str) -> str:
    if path.isascii() and path.isprintable():
        return path
    return "".join(f"%{byte:02X}" for byte in path.encode())


def _head(status: int, body: bytes | None, deprecated: bool) -> h11.Response:
    headers = [_SERVER, _KEEP_ALIVE]
    if deprecated:
        headers.append(_DEPRECATION)
    if body is not None:
        headers += [_JSON, (b"Content-Length", b"%d" % len(body))]
    return h11.Response(status_code=status, headers=headers, reason=b"")


def refusal(message: str) -> WireReply:
    """The reply to bytes that are no request (not JSON: its newline is raw)."""
    body = f'{{ "error": "{message}{_DROPPED}" }}'.encode()
    return WireReply(b"%b%d\r\n\r\n%b" % (_ERROR_HEAD.encode(), len(body), body))
