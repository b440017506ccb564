"""Session tokens: an expiry that only this process can have signed.

Firecracker seals the expiry with AES-256-GCM, which Python's standard library
does not have. Nothing in a token is a secret, it must only not be forged: an
HMAC-SHA256 over a random id and the expiry says the same, in a text as long.
The key is made for each process and never saved, so a restored machine knows no
token of before.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_TTL_S = 1
MAX_TTL_S = 21_600
KEY_BYTES = 32
_ID_BYTES = 12
_TAG_BYTES = 16
_EXPIRY = struct.Struct("<Q")
_TOKEN_BYTES = _ID_BYTES + _EXPIRY.size + _TAG_BYTES
TOKEN_CHARS = _TOKEN_BYTES // 3 * 4  # base64, and nothing to pad


class TtlError(ValueError):
    """A lifetime outside 1 to 21,600 seconds; ``str()`` is Firecracker's text."""

    def __init__(self, ttl_s: int) -> None:
        super().__init__(
            f"Invalid time to live value provided for token: {ttl_s}. Please "
            f"provide a value between {MIN_TTL_S} and {MAX_TTL_S}."
        )


class TokenAuthority:
    """Makes and judges the tokens of one microVM.

    ``random_bytes(n)`` must be the system's. Times are monotonic milliseconds.
    """

    def __init__(self, instance_id: str, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._key = random_bytes(KEY_BYTES)
        self._owner = f"microvmid={instance_id}".encode("utf-8", "surrogateescape")

    def make(self, ttl_s: int, now_ms: int) -> str:
        """A token that is valid for ``ttl_s`` seconds from now. Raises TtlError."""
        if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
            raise TtlError(ttl_s)
        signed = self._random_bytes(_ID_BYTES) + _EXPIRY.pack(now_ms + ttl_s * 1000)
        return binascii.b2a_base64(signed + self._tag(signed), newline=False).decode()

    def is_valid(self, token: str, now_ms: int) -> bool:
        """Whether a text is a token of this authority that has not expired."""
        if len(token) != TOKEN_CHARS:
            return False
        try:
            raw = binascii.a2b_base64(token, strict_mode=True)
        except ValueError:
            return False
        signed, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(signed)):
            return False
        (expiry_ms,) = _EXPIRY.unpack_from(signed, _ID_BYTES)
        return bool(expiry_ms > now_ms)

    def _tag(self, signed: bytes) -> bytes:
        return hmac.digest(self._key, self._owner + signed, "sha256")[:_TAG_BYTES]
