"""What the snapshot commands have in common: arguments, errors, progress."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from vmmd.errors import VmmdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

OK, NO, TROUBLE = 0, 1, 2
_EVERY_S = {True: 0.1, False: 1.0}  # on a terminal, in a log


class Command:
    """One command: its parser, and how it runs.

    ``no`` says in the help when the exit code is 1.
    """

    def __init__(self, name: str, about: str, no: str) -> None:
        self.name = f"vmmd snapshot {name}"
        self.parser = argparse.ArgumentParser(
            prog=self.name,
            description=about,
            epilog=f"exit code: 0 done; 1 {no}; 2 trouble: a wrong argument, or a "
            "file or socket that could not be used",
        )

    def run(
        self, argv: Sequence[str], work: Callable[[argparse.Namespace], int]
    ) -> int:
        """Parse and work; an error is one line and exit code 2."""
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` just ends
        arguments = self.parser.parse_args(argv)
        try:
            return work(arguments)
        except VmmdError as error:
            return self.trouble(str(error))
        except OSError as error:
            named = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            return self.trouble(f"{named}{error.strerror or error}")

    def trouble(self, text: str) -> int:
        """Say what is wrong; the exit code."""
        show(f"{self.name}: {text}", sys.stderr)
        return TROUBLE


class Meter:
    """Progress on standard error: on one line of a terminal, else once a second.

    ``every_s``: otherwise.
    """

    def __init__(self, what: str, every_s: float | None = None) -> None:
        self._what = what
        self._tty = sys.stderr.isatty()
        self._every_s = _EVERY_S[self._tty] if every_s is None else every_s
        self._said_s = time.monotonic()
        self._shown = False

    def __call__(self, done: int, size: int) -> None:
        """``done`` of ``size`` bytes are passed."""
        now_s = time.monotonic()
        if size and now_s - self._said_s >= self._every_s:
            self._said_s, self._shown = now_s, True
            text = f"{self._what}: {100 * done // size} % of {size_text(size)}"
            start, end = ("\r", "") if self._tty else ("", "\n")
            print(f"{start}{text}", end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._tty and self._shown:
            print(file=sys.stderr)


def show(line: str, stream: TextIO | None = None) -> None:
    """Print a line, to standard output if no stream is given.

    What a file holds reaches no terminal but as something to read.
    """
    text = "".join(c if c.isprintable() else _escaped(c) for c in line)
    print(text, file=stream or sys.stdout)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def size_text(size: int) -> str:
    """Bytes for people: ``64 MiB``, ``4 KiB``."""
    shift, unit = (20, "MiB") if size >= 1 << 20 else (10, "KiB")
    return f"{size / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
