"""Makes the API socket appear already listening.

Loads nothing but C modules, so that the socket is there as soon as the
interpreter runs and everything slow is imported behind it.
"""

from __future__ import annotations

import _socket
import errno
import os

from vmmd.errors import ExitError
from vmmd.rust import debug_str, io_error, io_error_debug

_PATH_SIZE = 108
"""Bytes of ``sockaddr_un.sun_path``, its final NUL included."""
_BACKLOG = 128
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)


def listen(path: str) -> _socket.socket:
    """A socket that listens at ``path``, which must not exist yet.

    It is bound under another name in the same folder and linked to its own
    once it listens, so nobody connects too early and nothing is overwritten.
    Raises ExitError with Firecracker's texts.
    """
    if len(os.fsencode(path)) >= _PATH_SIZE:
        raise _cannot_run(
            "path must be shorter than SUN_LEN",
            'Error { kind: InvalidInput, message: "path must be shorter than SUN_LEN" }',
        )
    if os.path.lexists(path):
        raise _in_use(path)
    try:
        return _listen_and_link(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.EADDRINUSE):
            raise _in_use(path) from None
        raise _cannot_run(io_error(error), io_error_debug(error)) from None


def _listen_and_link(path: str) -> _socket.socket:
    folder, name = os.path.split(path)
    if not name:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    temporary = f".{os.urandom(6).hex()}"
    folder_fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        server = _listen_at(_reachable(folder, folder_fd, temporary))
        try:
            os.link(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        except OSError as error:
            server.close()
            if error.errno in _NO_HARD_LINKS:
                return _listen_at(path)
            raise
        finally:
            os.unlink(temporary, dir_fd=folder_fd)
        return server
    finally:
        os.close(folder_fd)


def _reachable(folder: str, folder_fd: int, name: str) -> str:
    """A path of ``name`` that fits the address, in whatever deep a folder."""
    path = os.path.join(folder, name)
    if len(os.fsencode(path)) < _PATH_SIZE:
        return path
    return f"/proc/self/fd/{folder_fd}/{name}"


def _listen_at(path: str) -> _socket.socket:
    kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
    server = _socket.socket(_socket.AF_UNIX, kind)
    try:
        server.bind(path)
        server.listen(_BACKLOG)
    except OSError:
        server.close()
        raise
    return server


def _in_use(path: str) -> ExitError:
    return ExitError(
        f"RunWithApiError error: Failed to open the API socket at: {path}. "
        "Check that it is not already used.",
        f"RunWithApi(FailedToBindSocket({debug_str(path)}))",
    )


def _cannot_run(text: str, debug: str) -> ExitError:
    return ExitError(
        "RunWithApiError error: Failed to bind and run the HTTP server: "
        f"IO error: {text}",
        f"RunWithApi(FailedToBindAndRunHttpServer(IOError({debug})))",
    )
