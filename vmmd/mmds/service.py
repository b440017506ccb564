"""The metadata service of one microVM: its store, its rules, its tokens.

Which request gets which answer is Firecracker's, as are the texts. The network
side is a :class:`~vmmd.mmds.responder.Responder` per interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.rust import ParseIntError, parse_unsigned

from .counters import Counters
from .http import JSON, TEXT, Refused, Reply, Request, parse
from .state import MmdsState
from .store import NotFound, Store, UnsupportedValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import Json
    from .token import TokenAuthority

TOKEN_PATH = "/latest/api/token"
_NS_PER_MS = 1_000_000
_TOKEN = ("x-metadata-token", "x-aws-ec2-metadata-token")
_TTL = ("x-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token-ttl-seconds")
_FORWARDED = "x-forwarded-for"
_NO_TOKEN = (
    "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` "
    "header to specify the session token."
)
_NO_TTL = (
    "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or "
    "`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime."
)
_UNSUPPORTED = "Cannot retrieve value. The value has an unsupported type."


class Mmds:
    """What the guest's requests are answered from.

    ``dump`` writes JSON as the API does; ``random_bytes(n)`` is the system's.
    """

    def __init__(
        self,
        limit_bytes: int,
        instance_id: str,
        dump: Callable[[Json], str],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.store = Store(limit_bytes, dump)
        self.random_bytes = random_bytes
        self.counters = Counters()
        self._instance_id = instance_id
        self._state = MmdsState()
        self._tokens: TokenAuthority | None = None

    def configure(self, state: MmdsState) -> None:
        """Choose the version and whether text answers are always EC2's."""
        self._state = state

    def save(self) -> MmdsState:
        """The configuration, for a snapshot."""
        return self._state

    def answer(self, data: bytes, now_ns: int) -> bytes:
        """The reply to a request's bytes; ``now_ns`` is monotonic."""
        try:
            request = parse(data)
        except Refused as refused:
            return Reply(refused.status, str(refused), JSON).encode(b"HTTP/1.1")
        return self._reply(request, now_ns // _NS_PER_MS).encode(request.version)

    def _reply(self, request: Request, now_ms: int) -> Reply:
        if not request.path:
            return Reply(400, "Invalid URI.")
        match request.method:
            case b"GET":
                return self._refuse_get(request, now_ms) or self._get(request)
            case b"PUT":
                return self._put(request, now_ms)
            case _:
                allow = ("Allow: GET, PUT",)
                return Reply(405, "Not allowed HTTP method.", extra=allow)

    def _refuse_get(self, request: Request, now_ms: int) -> Reply | None:
        """Count a token that is missing or wrong; version 2 refuses it."""
        found = request.header(*_TOKEN)
        if found is None:
            self.counters.rx_no_token += 1
            text = _NO_TOKEN
        elif self._authority().is_valid(found[1], now_ms):
            return None
        else:
            self.counters.rx_invalid_token += 1
            text = "MMDS token not valid."
        return Reply(401, text) if self._state.version == "V2" else None

    def _get(self, request: Request) -> Reply:
        path = _collapsed(request.path)
        as_json = request.accept == JSON and not self._state.imds_compat
        read = self.store.json if as_json else self.store.text
        try:
            return Reply(200, read(path), request.accept)
        except NotFound:
            return Reply(404, f"Resource not found: {request.path}.")
        except UnsupportedValue:
            return Reply(501, _UNSUPPORTED)

    def _put(self, request: Request, now_ms: int) -> Reply:
        """A new token; nothing else can be put."""
        if (forwarded := request.header(_FORWARDED)) is not None:
            return _bad_header(f"Unsupported header name. Key: {forwarded[0]}")
        if _collapsed(request.path) != TOKEN_PATH:
            return Reply(404, f"Resource not found: {request.path}.")
        if (ttl := request.header(*_TTL)) is None:
            return Reply(400, _NO_TTL)
        name, value = ttl
        try:
            ttl_s = parse_unsigned(value, 10, 32)
        except ParseIntError:
            return _bad_header(f"Invalid value. Key:{name}; Value:{value}")
        return self._token(name, ttl_s, now_ms)

    def _token(self, name: str, ttl_s: int, now_ms: int) -> Reply:
        from .token import TtlError

        try:
            token = self._authority().make(ttl_s, now_ms)
        except TtlError as error:
            return Reply(400, str(error))
        return Reply(200, token, TEXT, (f"{name}: {ttl_s}",))

    def _authority(self) -> TokenAuthority:
        """Made at the first token: it brings the hashes of OpenSSL with it."""
        if self._tokens is None:
            from .token import TokenAuthority

            self._tokens = TokenAuthority(self._instance_id, self.random_bytes)
        return self._tokens


def _bad_header(reason: str) -> Reply:
    return Reply(400, f"Invalid header. Reason: {reason}")


def _collapsed(path: str) -> str:
    """The path with every run of slashes made one."""
    while "//" in path:
        path = path.replace("//", "/")
    return path
