"""The log: Firecracker's lines, to standard output, a file or a FIFO.

    2026-01-31T12:00:00.123456789 [id:thread:LEVEL:file:line] message

Imports nothing that is slow to import: the first line is written before the
loop exists. A line that cannot be written at once is dropped and counted;
nothing here ever waits.
"""

from __future__ import annotations

import _socket
import os
import stat
import sys
import time

from vmmd.errors import ConfigError
from vmmd.rust import c_path, io_error, io_error_debug

DEFAULT_INSTANCE_ID = "anonymous-instance"

OFF, ERROR, WARN, INFO, DEBUG, TRACE = range(6)
_LEVEL_NAMES = ("OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE")
_LEVELS = {name.lower(): level for level, name in enumerate(_LEVEL_NAMES)} | {
    "warning": WARN
}

_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_SITE_DEPTH = 4
"""Frames between the code that logs and ``_origin``."""


class LevelError(ConfigError):
    """No such level."""


class LoggerUpdateError(ConfigError):
    """The log file cannot be opened."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"Failed to open target file: {io_error(error)}")
        self.debug = f"LoggerUpdateError({io_error_debug(error)})"


def parse_level(text: str) -> int:
    """The level of that name, in any case; raises LevelError."""
    level = _LEVELS.get(text.lower())
    if level is None:
        raise LevelError(f"Failed to parse string to level filter: {text}")
    return level


class Logger:
    """Where log lines go and which do. ``missed`` counts those that were lost."""

    def __init__(self) -> None:
        self.instance_id = DEFAULT_INSTANCE_ID
        self.level = INFO
        self.missed = 0
        self._target: _Target = _Target.standard_output()
        self._module: str | None = None
        self._show_level = False
        self._show_origin = False
        self._clock = _Clock()

    def update(
        self,
        log_path: str | None = None,
        level: int | None = None,
        show_level: bool | None = None,
        show_log_origin: bool | None = None,
        module: str | None = None,
    ) -> None:
        """Apply what is given. A level that is not given goes back to INFO.

        Raises LoggerUpdateError, having changed nothing. ``module`` is the
        prefix that the module of a line must have.
        """
        if log_path is not None:
            self._replace_target(log_path)
        self.level = INFO if level is None else level
        if show_level is not None:
            self._show_level = show_level
        if show_log_origin is not None:
            self._show_origin = show_log_origin
        if module is not None:
            self._module = module

    def _replace_target(self, path: str) -> None:
        try:
            fd = os.open(c_path(path), _OPEN_FLAGS, 0o666)
        except OSError as error:
            raise LoggerUpdateError(error) from None
        self._target.close()
        self._target = _Target(fd, owned=True)

    def close(self) -> None:
        """Close the log file; later lines are lost and counted."""
        self._target.close()

    def channel(self, thread: str, module: str) -> Channel:
        """A place that logs, under Firecracker's names for it."""
        return Channel(self, thread, module)

    def enabled(self, level: int, module: str) -> bool:
        """Whether a line of that level and module would be written."""
        if level > self.level:
            return False
        return self._module is None or module.startswith(self._module)

    def write(self, level: int, thread: str, message: str) -> None:
        """Write a line, whatever the filters say."""
        name = f":{_LEVEL_NAMES[level]}" if self._show_level else ""
        origin = f":{_origin()}" if self._show_origin else ""
        head = f"{self._clock.now()} [{self.instance_id}:{thread}{name}{origin}]"
        line = f"{head} {message}\n".encode("utf-8", "surrogateescape")
        if not self._target.write(line):
            self.missed += 1


class Channel:
    """One thread's name and one module's, to log under. Cheap to make."""

    __slots__ = ("_logger", "_module", "_thread")

    def __init__(self, logger: Logger, thread: str, module: str) -> None:
        self._logger = logger
        self._thread = thread
        self._module = module

    def error(self, message: str) -> None:
        """Log what failed."""
        self._log(ERROR, message)

    def warn(self, message: str) -> None:
        """Log what may surprise."""
        self._log(WARN, message)

    def info(self, message: str) -> None:
        """Log what happened."""
        self._log(INFO, message)

    def debug(self, message: str) -> None:
        """Log detail. For a costly message ask ``debugging`` first."""
        self._log(DEBUG, message)

    @property
    def debugging(self) -> bool:
        """Whether ``debug`` would write."""
        return self._logger.enabled(DEBUG, self._module)

    @property
    def informing(self) -> bool:
        """Whether ``info`` would write."""
        return self._logger.enabled(INFO, self._module)

    def _log(self, level: int, message: str) -> None:
        if self._logger.enabled(level, self._module):
            self._logger.write(level, self._thread, message)


_SEND_FLAGS = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


class _Target:
    """A file descriptor that is written without ever waiting."""

    def __init__(self, fd: int, *, owned: bool) -> None:
        self._fd = fd
        self._owned = owned
        self._torn = False
        self._unread = False
        self._socket: _socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = _socket.socket(fileno=os.dup(fd))

    @classmethod
    def standard_output(cls) -> _Target:
        """Descriptor 1, or what can be had in its place that does not block.

        Its own O_NONBLOCK would be everybody's who shares it, a shell among
        them. A pipe or a terminal is therefore opened anew; a file does not
        block and must keep the shared offset; a socket has MSG_DONTWAIT.
        """
        try:
            mode = os.fstat(1).st_mode
        except OSError:
            return cls(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC), owned=True)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            try:
                return cls(os.open("/proc/self/fd/1", flags), owned=True)
            except OSError:
                pass  # no /proc in a jail: the shared one has to do
        return cls(1, owned=False)

    def write(self, line: bytes) -> bool:
        """Write a line; False if some of it was lost.

        Where the reader has gone nothing is tried again: each try is a SIGPIPE, which
        is worth a line, which is a try.
        """
        if self._unread:
            return False
        if self._torn:
            line = b"\n" + line
        try:
            if self._socket is None:
                count = os.write(self._fd, line)
            else:
                count = self._socket.send(line, _SEND_FLAGS)
        except BrokenPipeError:
            self._unread = True
            return False
        except OSError:
            return False
        self._torn = count < len(line)
        return not self._torn

    def close(self) -> None:
        """Let go of it; standard output itself stays open."""
        if self._socket is not None:
            self._socket.close()
        if self._owned:
            os.close(self._fd)


class _Clock:
    """Local time as text, with the calendar worked out once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        return f"{self._text}.{nanosecond:09}"


def _origin() -> str:
    """The file and line that logged, from the package's root."""
    frame = sys._getframe(_SITE_DEPTH)  # noqa: SLF001 - no public way is as cheap
    path = frame.f_code.co_filename
    at = path.rfind("/vmmd/")
    return f"{path[at + 1 :]}:{frame.f_lineno}"
