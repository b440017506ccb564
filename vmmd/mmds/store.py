"""The metadata: one JSON value, put and merged by the API, read by the guest.

Limits, merge and the text format are Firecracker's (RFC 7396, EC2's IMDS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from vmmd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class StoreError(ConfigError):
    """A refused change; ``reason`` is the text without the API's prefix."""

    def __init__(self, prefix: str, reason: str, debug: str, status: int) -> None:
        super().__init__(prefix + reason)
        self.reason = reason
        self.debug = debug
        self.status = status


class LimitExceeded(StoreError):
    """The store would be larger than its limit; nothing has changed."""

    def __init__(self) -> None:
        reason = "The MMDS patch request doesn't fit."
        prefix = "MMDS limit exceeded error: "
        super().__init__(prefix, reason, "DataStoreLimitExceeded", 413)


class NotInitialized(StoreError):
    """Nothing has been put yet, or the machine has no metadata service."""

    def __init__(self) -> None:
        reason = "The MMDS data store is not initialized."
        super().__init__("MMDS error: ", reason, "NotInitialized", 400)


class NotFound(Exception):
    """A path leads to nothing."""


class UnsupportedValue(Exception):
    """What a path leads to has no text: neither an object nor a string."""


class Store:
    """The value and its limit in bytes of compact JSON.

    ``dump`` writes a value as compact JSON; keys of objects are kept sorted.
    """

    def __init__(self, limit_bytes: int, dump: Callable[[Json], str]) -> None:
        self._limit_bytes = limit_bytes
        self._dump = dump
        self._value: Json = None
        self._initialized = False
        self._dumped: tuple[str, str] | None = None

    @property
    def value(self) -> Json:
        """The whole value; None as long as nothing has been put."""
        return self._value

    def put(self, value: Json) -> None:
        """Replace all of it. Raises LimitExceeded."""
        self._replace(_sorted(value))
        self._initialized = True

    def patch(self, patch: Json) -> None:
        """Merge into it. Raises NotInitialized before a put, or LimitExceeded."""
        if not self._initialized:
            raise NotInitialized
        self._replace(_sorted(merged(self._value, patch)))

    def json(self, path: str) -> str:
        """The JSON of what a path leads to. Raises NotFound.

        Kept for who asks again: a guest may, many times in one packet.
        """
        if self._dumped is None or self._dumped[0] != path:
            self._dumped = path, self._dump(find(self._value, path))
        return self._dumped[1]

    def text(self, path: str) -> str:
        """A string as it is; of an object the keys, a line each, sorted, with ``/``
        behind those of objects. Raises NotFound or UnsupportedValue.
        """
        match find(self._value, path):
            case dict() as found:
                return "\n".join(_shown(key, found[key]) for key in found)
            case str() as found:
                return found
            case _:
                raise UnsupportedValue

    def _replace(self, value: Json) -> None:
        if len(self._dump(value).encode()) > self._limit_bytes:
            raise LimitExceeded
        self._value, self._dumped = value, None


def merged(target: Json, patch: Json) -> Json:
    """``target`` after a JSON Merge Patch (RFC 7396); both stay as they are."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def find(value: Json, path: str) -> Json:
    """What a JSON pointer (RFC 6901) leads to, one ``/`` at its end left out.

    Raises NotFound.
    """
    first, *tokens = path.removesuffix("/").split("/")
    if first:
        raise NotFound
    for token in tokens:
        value = _step(value, token.replace("~1", "/").replace("~0", "~"))
    return value


def _step(value: Json, token: str) -> Json:
    try:
        match value:
            case dict():
                return value[token]
            case list():
                return value[_index(token)]
            case _:
                raise NotFound
    except LookupError:
        raise NotFound from None


def _index(token: str) -> int:
    """An array's index: digits alone, without a zero in front. LookupError."""
    digits = token.isascii() and token.isdigit() and len(token) <= 20
    if not digits or (token[0] == "0" and token != "0"):
        raise LookupError
    return int(token)


def _shown(key: str, value: Json) -> str:
    return f"{key}/" if isinstance(value, dict) else key


def _sorted(value: Json) -> Json:
    match value:
        case dict():
            return {key: _sorted(value[key]) for key in sorted(value)}
        case list():
            return [_sorted(item) for item in value]
        case _:
            return value
