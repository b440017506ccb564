"""HTTP as the guest speaks it: a request's bytes, a reply's bytes.

Judged as by micro-http, which Firecracker reads requests with; texts are its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vmmd.rust import WHITE_SPACE, ParseIntError, parse_unsigned

TEXT = "text/plain"
JSON = "application/json"
_MIN_LINE = len("GET  HTTP/1.1")
_METHODS = frozenset((b"GET", b"PUT", b"PATCH", b"DELETE"))
_BODILESS = frozenset((b"GET", b"DELETE"))
_VERSIONS = frozenset((b"HTTP/1.0", b"HTTP/1.1"))
_SCHEME = "http://"
_HEAD = b"\r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"


class Refused(Exception):
    """Bytes that are no request: the status and the text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``path`` is the absolute path, or "" if its URI has none.

    ``accept`` is TEXT or JSON. ``headers`` are those that mean nothing to HTTP
    itself, by their names as sent; of two of one name the later counts.
    """

    method: bytes
    path: str
    version: bytes
    accept: str = TEXT
    headers: dict[str, str] = field(default_factory=dict)

    def header(self, *names: str) -> tuple[str, str] | None:
        """The first header of one of these names, given in lower case."""
        for name, value in self.headers.items():
            if name.lower() in names:
                return name, value
        return None


def take_request(buffer: bytearray) -> bytes | None:
    """Take what ends in an empty line off the front; None if nothing does yet.

    A line may end in LF alone here; ``parse`` is stricter.
    """
    ends = (_end_of(buffer, mark) for mark in (b"\n\n", b"\n\r\n"))
    found = [end for end in ends if end]
    if not found:
        return None
    taken = bytes(buffer[: min(found)])
    del buffer[: len(taken)]
    return taken


def _end_of(buffer: bytearray, mark: bytes) -> int:
    at = buffer.find(mark)
    return 0 if at < 0 else at + len(mark)


def parse(data: bytes) -> Request:
    """The request in bytes that end in an empty line. Raises Refused."""
    line, end, rest = data.partition(b"\r\n")
    if not end or len(line) < _MIN_LINE:
        raise Refused(400, "Invalid request.")
    method, path, version = _parse_line(line)
    if rest == b"\r\n":
        return Request(method, path, version)
    lines, end, _ = rest.partition(b"\r\n\r\n")
    if not end:
        raise Refused(400, "Invalid request.")
    headers = _Headers()
    for text in _lines(lines):
        headers.take(text)
    # A body is not waited for, so a request that has one is never whole.
    if headers.content_length:
        raise Refused(400, "Invalid request.")
    return Request(method, path, version, headers.accept, headers.others)


def _lines(data: bytes) -> list[str]:
    try:
        return data.decode().split("\r\n")
    except UnicodeDecodeError:
        raise Refused(400, "Invalid request.") from None


def _parse_line(line: bytes) -> tuple[bytes, str, bytes]:
    parts = line.split(b" ", 2)
    if len(parts) < 3:
        raise Refused(400, "Invalid request.")
    method, uri, version = parts
    if method not in _METHODS:
        raise Refused(501, "Unsupported HTTP method.")
    if not uri:
        raise Refused(400, "Empty URI not allowed.")
    try:
        target = uri.decode()
    except UnicodeDecodeError:
        raise Refused(400, "Cannot parse URI as UTF-8.") from None
    if version not in _VERSIONS:
        raise Refused(501, "Unsupported HTTP version.")
    return method, _absolute_path(target), version


def _absolute_path(target: str) -> str:
    if target.startswith(_SCHEME):
        _, slash, path = target[len(_SCHEME) :].partition("/")
        return slash + path
    return target if target.startswith("/") else ""


class _Headers:
    def __init__(self) -> None:
        self.accept = TEXT
        self.content_length = 0
        self.others: dict[str, str] = {}

    def take(self, line: str) -> None:
        """Read one header line. Raises Refused."""
        name, colon, value = line.partition(":")
        if not colon:
            raise Refused(400, f"Header is incorrectly formatted. Key: {name}")
        bare = value.strip(WHITE_SPACE)
        match name.lower().strip(WHITE_SPACE):
            case "content-length":
                self.content_length = _length(name, value)
            case "accept":
                self.accept = bare if bare in (TEXT, JSON) else self.accept
            case "accept-encoding":
                _check_encodings(bare)
            case "content-type" | "expect" | "transfer-encoding" | "server":
                pass
            case _:
                self.others[name.strip(WHITE_SPACE)] = bare


def _length(name: str, value: str) -> int:
    try:
        return parse_unsigned(value.strip(WHITE_SPACE), 10, 32)
    except ParseIntError:
        raise Refused(400, f"Invalid value. Key:{name}; Value:{value}") from None


def _check_encodings(value: str) -> None:
    """Refuse what rules plain bodies out."""
    if not value:
        raise Refused(400, "Invalid request.")
    for encoding in value.split(","):
        bare = encoding.strip(WHITE_SPACE)
        if bare == "identity;q=0" or (bare == "*;q=0" and "identity" not in value):
            text = f"Invalid value. Key:Accept-Encoding; Value:{encoding}"
            raise Refused(400, text)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``extra`` are header lines of its own."""

    status: int
    body: str
    content_type: str = TEXT
    extra: tuple[str, ...] = ()

    def encode(self, version: bytes) -> bytes:
        """The bytes of the answer in a version of HTTP; no reason phrase."""
        body = self.body.encode()
        lines = (
            *self.extra,
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(body)}",
        )
        head = "".join(f"{line}\r\n" for line in lines).encode()
        return b"%b %d %b%b\r\n%b" % (version, self.status, _HEAD, head, body)
