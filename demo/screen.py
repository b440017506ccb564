"""What the demo shows: steps, calls, and the guest's console line by line."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GUEST = "    | "
"""Stands before each line of the guest's."""

_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|[\r\x07]")


def plain(text: str) -> str:
    """``text`` without a terminal's control sequences."""
    return _TERMINAL.sub("", text)


class Transcript:
    """What a guest has printed so far; shown in whole lines, as they end.

    One thread adds, another waits.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._text = ""
        self._shown = 0
        self._ended = False
        self._changed = threading.Condition()

    def add(self, text: str) -> None:
        """The guest has printed ``text``."""
        with self._changed:
            self._text += text
            self._show_to(self._text.rfind("\n") + 1)
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will come: show what is left, wake who waits."""
        with self._changed:
            self._show_to(len(self._text))
            self._ended = True
            self._changed.notify_all()

    @property
    def length(self) -> int:
        """How much was printed; a place to wait from."""
        with self._changed:
            return len(self._text)

    def wait(self, text: str, after: int, seconds: float) -> int | None:
        """Wait until ``text`` is there past ``after``: where it ends, or None."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._text.find(text, after) >= 0, seconds
            )
            at = self._text.find(text, after)
            return None if at < 0 else at + len(text)

    def _show_to(self, end: int) -> None:
        for line in plain(self._text[self._shown : end]).splitlines():
            self._show(GUEST + line)
        self._shown = max(end, self._shown)


@dataclass(slots=True)
class Times:
    """What was measured, in the order of beginning."""

    rows: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Add a row with the time that the block takes."""
        began, at = monotonic(), len(self.rows)
        yield
        self.rows.insert(at, (what, monotonic() - began))

    def table(self) -> str:
        """The rows, for people."""
        width = max((len(what) for what, _ in self.rows), default=0)
        lines = (f"  {what:<{width}} {s * 1e3:10.1f} ms" for what, s in self.rows)
        return "\n".join(lines)


def shorten(text: str, most: int = 300) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text)} bytes)"
