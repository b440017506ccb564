"""Loads what a start needs before it is asked for.

KVM, devices and boot are not wanted for the first answer, and take longer to
import than a machine takes to build. They come right after that answer, in one
go: whoever starts a machine has configured it first.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from typing import Protocol

    class Answering(Protocol):
        """A server that tells of its first answer."""

        answered_once: trio.Event


IDLE_S = 0.05
"""Nobody asks anything: load it now. Ends every timer of an idle process."""
_MODULES = ("vmmd.loop.start",)


async def preload(server: Answering) -> None:
    """Wait for the first answer, or for nobody to ask, then load it all."""
    with trio.move_on_after(IDLE_S):
        await server.answered_once.wait()
    load()


def load() -> None:
    """Import what a start imports; the collector need not look at it."""
    gc.disable()
    try:
        for name in _MODULES:
            import_module(name)
        gc.freeze()
    finally:
        gc.enable()
