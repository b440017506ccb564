"""How Rust's standard library words things, since clients match on its texts.

Firecracker's log lines, ``fault_message`` texts and standard error contain
``{:?}`` of strings and of ``io::Error``; these functions give the same.
"""

from __future__ import annotations

import errno as _errno
import os

_ESCAPES = {
    0x00: "\\0",
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
    0x22: '\\"',
    0x5C: "\\\\",
    **{
        code: f"\\u{{{code:x}}}" for code in (*range(1, 9), 11, 12, *range(14, 32), 127)
    },
}

WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""What ``str::trim`` takes off (Unicode's White_Space; Python's is larger)."""

_KINDS = {
    _errno.EPERM: "PermissionDenied",
    _errno.EACCES: "PermissionDenied",
    _errno.ENOENT: "NotFound",
    _errno.EINTR: "Interrupted",
    _errno.E2BIG: "ArgumentListTooLong",
    _errno.EAGAIN: "WouldBlock",
    _errno.ENOMEM: "OutOfMemory",
    _errno.EBUSY: "ResourceBusy",
    _errno.EEXIST: "AlreadyExists",
    _errno.EXDEV: "CrossesDevices",
    _errno.ENOTDIR: "NotADirectory",
    _errno.EISDIR: "IsADirectory",
    _errno.EINVAL: "InvalidInput",
    _errno.ETXTBSY: "ExecutableFileBusy",
    _errno.EFBIG: "FileTooLarge",
    _errno.ENOSPC: "StorageFull",
    _errno.ESPIPE: "NotSeekable",
    _errno.EROFS: "ReadOnlyFilesystem",
    _errno.EMLINK: "TooManyLinks",
    _errno.EPIPE: "BrokenPipe",
    _errno.EDEADLK: "Deadlock",
    _errno.ENAMETOOLONG: "InvalidFilename",
    _errno.ENOSYS: "Unsupported",
    _errno.EOPNOTSUPP: "Unsupported",
    _errno.ENOTEMPTY: "DirectoryNotEmpty",
    _errno.ELOOP: "FilesystemLoop",
    _errno.EADDRINUSE: "AddrInUse",
    _errno.EADDRNOTAVAIL: "AddrNotAvailable",
    _errno.ECONNREFUSED: "ConnectionRefused",
    _errno.ECONNRESET: "ConnectionReset",
    _errno.ECONNABORTED: "ConnectionAborted",
    _errno.ENOTCONN: "NotConnected",
    _errno.ETIMEDOUT: "TimedOut",
    _errno.ESTALE: "StaleNetworkFileHandle",
    _errno.EDQUOT: "QuotaExceeded",
}


def debug_str(text: str) -> str:
    """``{:?}`` of a string: in quotes, with Rust's escapes."""
    text = text.translate(_ESCAPES)
    if not text.isascii():
        text = "".join(map(_escape_unprintable, text))
    return f'"{text}"'


def _escape_unprintable(char: str) -> str:
    if char.isascii():
        return char
    if char.isprintable() and not _extends_grapheme(char):
        return char
    return f"\\u{{{ord(char):x}}}"


def _extends_grapheme(char: str) -> bool:
    import unicodedata  # only text outside ASCII pays for its table

    return unicodedata.category(char) in ("Mn", "Me")


def io_error(error: OSError) -> str:
    """``{}`` of an ``io::Error`` that came from the system."""
    code = error.errno or 0
    return f"{os.strerror(code)} (os error {code})"


def io_error_debug(error: OSError) -> str:
    """``{:?}`` of an ``io::Error`` that came from the system."""
    code = error.errno or 0
    kind = _KINDS.get(code, "Uncategorized")
    message = debug_str(os.strerror(code))
    return f"Os {{ code: {code}, kind: {kind}, message: {message} }}"


def utf8_error(error: UnicodeDecodeError) -> str:
    """``{}`` of the ``Utf8Error`` that the same bytes give."""
    if error.reason == "unexpected end of data":
        return f"incomplete utf-8 byte sequence from index {error.start}"
    count = error.end - error.start
    return f"invalid utf-8 sequence of {count} bytes from index {error.start}"
