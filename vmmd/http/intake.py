"""Reads requests the way Firecracker's HTTP library does, byte for byte.

micro-http takes at most 1,024 bytes at a time into one buffer, looks for CR LF
only, and refuses in its own words. Which requests of a pipeline are lost to an
error, and how long a line may be, follow from those reads; so this module goes
through the same reads, whatever sizes the bytes arrived in:

- a line must fit the buffer, its CR LF included;
- an error drops what else the same read held, requests before it included;
  what the connection waits for stays (after a bad header: more headers), and
  so does the start of a line that the buffer held before the read;
- requests of one read are answered before the next read is made.
"""

from __future__ import annotations

from vmmd.rust import WHITE_SPACE, utf8_error

BUFFER_SIZE = 1024
MAX_PAYLOAD_SIZE = 51_200
_U32_MAX = 0xFFFF_FFFF
_METHODS = frozenset((b"GET", b"PUT", b"PATCH", b"DELETE"))
_VERSIONS = frozenset((b"HTTP/1.0", b"HTTP/1.1"))
_HTTP_SCHEME = "http://"


class Refused(Exception):
    """The bytes are no request; ``str()`` is micro-http's message."""


class Incoming:
    """A request as far as it has come. ``path`` is the absolute path or ""."""

    def __init__(self, method: bytes, path: str, version: bytes) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.content_length = 0
        self.expects_continue = False
        self.closes = False
        self.body: bytes | bytearray = b""


class Batch:
    """What one read brought: whole requests in order, or else a refusal.

    ``continues``: an interim 100 reply to send before anything else for each, in
    the HTTP version of its request, which no other reply heeds.
    """

    def __init__(self) -> None:
        self.requests: list[Incoming] = []
        self.continues: list[bytes] = []
        self.refusal = ""


class Intake:
    """The receiving half of one connection: bytes in, requests out."""

    def __init__(self, max_payload_size: int = MAX_PAYLOAD_SIZE) -> None:
        self._max_payload_size = max_payload_size
        self._arrived = bytearray()
        self._held = b""  # the start of a line, left over from earlier reads
        self._pending: Incoming | None = None
        self._missing = 0  # bytes of the pending request's body

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; ``read`` looks at them."""
        self._arrived += data

    def read(self) -> Batch | None:
        """Make one read of up to 1,024 bytes; None when nothing has arrived."""
        if not self._arrived:
            return None
        room = BUFFER_SIZE - len(self._held)
        buffer = self._held + self._arrived[:room]
        del self._arrived[:room]
        batch = Batch()
        try:
            self._held = self._scan(buffer, batch)
        except Refused as refusal:
            batch.requests.clear()
            batch.refusal = str(refusal)
        return batch

    def _scan(self, buffer: bytes, batch: Batch) -> bytes:
        """Go through the buffer; what of it must wait for the next read."""
        at = 0
        while True:
            if self._missing:
                at = self._take_body(buffer, at, batch)
                if self._missing:
                    return b""
                continue
            end = buffer.find(b"\r\n", at)
            if end < 0:
                if at == 0 and len(buffer) == BUFFER_SIZE:
                    raise self._line_too_long(buffer)
                return buffer[at:]
            line = buffer[at:end]
            at = end + 2
            if self._pending is None:
                self._pending = parse_request_line(line)
            elif line:
                parse_header_line(line, self._pending)
            else:
                self._end_headers(self._pending, batch)

    def _line_too_long(self, buffer: bytes) -> Refused:
        if self._pending is None:
            return Refused("Invalid request.")
        text = buffer.decode("utf-8", "replace")
        return Refused(
            f"Invalid header. Reason: Invalid content length. Header: {text}"
        )

    def _end_headers(self, request: Incoming, batch: Batch) -> None:
        size = request.content_length
        if size > self._max_payload_size:
            raise Refused(
                f"Request payload with size {size} is larger than the limit of "
                f"{self._max_payload_size} allowed by server."
            )
        if size == 0:
            self._pending = None
            batch.requests.append(request)
            return
        self._missing = size
        request.body = bytearray()
        if request.expects_continue:
            batch.continues.append(request.version)

    def _take_body(self, buffer: bytes, at: int, batch: Batch) -> int:
        """Move body bytes to the pending request; where the rest begins."""
        request = self._pending
        if request is None:
            raise RuntimeError("a body is missing of no request")
        part = buffer[at : at + self._missing]
        request.body += part
        self._missing -= len(part)
        if not self._missing:
            self._pending = None
            batch.requests.append(request)
        return at + len(part)


def parse_request_line(line: bytes) -> Incoming:
    """Read ``METHOD SP URI SP VERSION``; raises Refused."""
    parts = line.split(b" ", 2)
    if len(parts) < 3:
        raise Refused("Invalid request.")
    method, uri, version = parts
    if method not in _METHODS:
        raise Refused("Invalid HTTP Method: Unsupported HTTP method.")
    if not uri:
        raise Refused("Invalid URI: Empty URI not allowed.")
    try:
        target = uri.decode()
    except UnicodeDecodeError:
        raise Refused("Invalid URI: Cannot parse URI as UTF-8.") from None
    if version not in _VERSIONS:
        raise Refused("Invalid HTTP Version: Unsupported HTTP version.")
    return Incoming(method, absolute_path(target), version)


def absolute_path(target: str) -> str:
    """The path of an absolute URI or of a path; "" for anything else."""
    if target.startswith(_HTTP_SCHEME):
        _, slash, path = target[len(_HTTP_SCHEME) :].partition("/")
        return slash + path
    return target if target.startswith("/") else ""


def parse_header_line(line: bytes, request: Incoming) -> None:
    """Read one header into ``request``; raises Refused.

    Names and values that are not known are fine, as are empty names; the last
    of several Content-Length counts.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        reason = f"Header contains invalid characters. Key: {utf8_error(error)}"
        raise Refused(f"Invalid header. Reason: {reason}") from None
    name, colon, value = text.partition(":")
    if not colon:
        raise Refused(
            f"Invalid header. Reason: Header is incorrectly formatted. Key: {name}"
        )
    match name.lower().strip(WHITE_SPACE):
        case "content-length":
            request.content_length = _content_length(name, value)
        case "expect":
            if value.strip(WHITE_SPACE) == "100-continue":
                request.expects_continue = True
        case "connection":
            request.closes |= value.strip(WHITE_SPACE).lower() == "close"
        case "accept-encoding":
            _check_encodings(value.strip(WHITE_SPACE))


def _content_length(name: str, value: str) -> int:
    digits = value.strip(WHITE_SPACE).removeprefix("+")
    if digits.isascii() and digits.isdigit() and len(digits.lstrip("0")) <= 10:
        number = int(digits)
        if number <= _U32_MAX:
            return number
    raise _invalid_value(name, value)


def _check_encodings(value: str) -> None:
    """Refuse what rules plain bodies out."""
    if not value:
        raise Refused("Invalid request.")
    for encoding in value.split(","):
        bare = encoding.strip(WHITE_SPACE)
        if bare == "identity;q=0" or (bare == "*;q=0" and "identity" not in value):
            raise _invalid_value("Accept-Encoding", encoding)


def _invalid_value(name: str, value: str) -> Refused:
    return Refused(f"Invalid header. Reason: Invalid value. Key:{name}; Value:{value}")
