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

# musl's strerror, which the released binaries are linked with.
_MESSAGES = {
    _errno.EPERM: "Operation not permitted",
    _errno.ENOENT: "No such file or directory",
    _errno.EINTR: "Interrupted system call",
    _errno.EIO: "I/O error",
    _errno.ENXIO: "No such device or address",
    _errno.EBADF: "Bad file descriptor",
    _errno.EAGAIN: "Resource temporarily unavailable",
    _errno.ENOMEM: "Out of memory",
    _errno.EACCES: "Permission denied",
    _errno.EFAULT: "Bad address",
    _errno.EBUSY: "Resource busy",
    _errno.EEXIST: "File exists",
    _errno.EXDEV: "Cross-device link",
    _errno.ENODEV: "No such device",
    _errno.ENOTDIR: "Not a directory",
    _errno.EISDIR: "Is a directory",
    _errno.EINVAL: "Invalid argument",
    _errno.ENFILE: "Too many open files in system",
    _errno.EMFILE: "No file descriptors available",
    _errno.ENOTTY: "Not a tty",
    _errno.ETXTBSY: "Text file busy",
    _errno.EFBIG: "File too large",
    _errno.ENOSPC: "No space left on device",
    _errno.ESPIPE: "Invalid seek",
    _errno.EROFS: "Read-only file system",
    _errno.EPIPE: "Broken pipe",
    _errno.ENAMETOOLONG: "Filename too long",
    _errno.ENOSYS: "Function not implemented",
    _errno.ENOTEMPTY: "Directory not empty",
    _errno.ELOOP: "Symbolic link loop",
    _errno.EOVERFLOW: "Value too large for data type",
    _errno.ENOTSOCK: "Not a socket",
    _errno.ENOTSUP: "Not supported",
    _errno.EADDRINUSE: "Address in use",
    _errno.EADDRNOTAVAIL: "Address not available",
    _errno.ECONNRESET: "Connection reset by peer",
    _errno.ENOTCONN: "Socket not connected",
    _errno.ETIMEDOUT: "Operation timed out",
    _errno.ECONNREFUSED: "Connection refused",
    _errno.ESTALE: "Stale file handle",
    _errno.EDQUOT: "Quota exceeded",
}

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


def debug_char(char: str) -> str:
    """``{:?}`` of a character: in single quotes, with Rust's escapes."""
    if char in "'\"":
        return "'\\''" if char == "'" else "'\"'"
    return f"'{debug_str(char)[1:-1]}'"


def _escape_unprintable(char: str) -> str:
    if char.isascii():
        return char
    if char.isprintable() and not _extends_grapheme(char):
        return char
    return f"\\u{{{ord(char):x}}}"


def _extends_grapheme(char: str) -> bool:
    import unicodedata  # only text outside ASCII pays for its table

    return unicodedata.category(char) in ("Mn", "Me")


class NulError(OSError):
    """A path with a NUL in it, which no system call can be given."""

    def __init__(self, message: str) -> None:
        super().__init__(_errno.EINVAL, message)
        self.message = message


def c_path(path: str) -> str:
    """The path, if it can be handed to the kernel. NulError."""
    if "\0" in path:
        raise NulError("file name contained an unexpected NUL byte")
    return path


def io_error(error: OSError) -> str:
    """``{}`` of an ``io::Error`` that came from the system, or of a NulError."""
    if isinstance(error, NulError):
        return error.message
    code = error.errno or 0
    return f"{_message(code)} (os error {code})"


def io_error_debug(error: OSError) -> str:
    """``{:?}`` of an ``io::Error`` that came from the system, or of a NulError."""
    if isinstance(error, NulError):
        message = debug_str(error.message)
        return f"Error {{ kind: InvalidInput, message: {message} }}"
    code = error.errno or 0
    kind = _KINDS.get(code, "Uncategorized")
    message = debug_str(_message(code))
    return f"Os {{ code: {code}, kind: {kind}, message: {message} }}"


def _message(code: int) -> str:
    return _MESSAGES.get(code) or os.strerror(code)


def utf8_error(error: UnicodeDecodeError) -> str:
    """``{}`` of the ``Utf8Error`` that the same bytes give."""
    if error.reason == "unexpected end of data":
        return f"incomplete utf-8 byte sequence from index {error.start}"
    count = error.end - error.start
    return f"invalid utf-8 sequence of {count} bytes from index {error.start}"


class ParseIntError(ValueError):
    """``std::num::ParseIntError``: ``str()`` is ``{}``, ``kind`` names the fault."""

    def __init__(self, kind: str) -> None:
        super().__init__(_INT_TEXTS[kind])
        self.kind = kind

    @property
    def debug(self) -> str:
        """``{:?}`` of the error."""
        return f"ParseIntError {{ kind: {self.kind} }}"


_INT_TEXTS = {
    "Empty": "cannot parse integer from empty string",
    "InvalidDigit": "invalid digit found in string",
    "PosOverflow": "number too large to fit in target type",
}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def parse_unsigned(text: str, radix: int, bits: int) -> int:
    """``uN::from_str_radix``: a leading ``+`` is taken, nothing else is.

    Raises ParseIntError of the first fault from the left.
    """
    if not text:
        raise ParseIntError("Empty")
    digits = text[1:] if text[0] == "+" and len(text) > 1 else text
    value = 0
    for char in digits:
        digit = _DIGITS.find(char.lower()) if char.isascii() else -1
        if not 0 <= digit < radix:
            raise ParseIntError("InvalidDigit")
        value = value * radix + digit
        if value >= 1 << bits:
            raise ParseIntError("PosOverflow")
    return value
