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
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Answering(Protocol):
        """A server that tells of its first answer."""

        answered_once: trio.Event


IDLE_S = 0.05
"""Nobody asks anything: load it now. Ends every timer of an idle process."""
_OF_A_START = ("vmmd.loop.start",)
_OF_A_LOAD = ("vmmd.loop.snapshots",)


async def preload(server: Answering, configured: Callable[[], bool]) -> None:
    """Wait for the first answer, or for nobody to ask, then load what a start needs.

    And if nothing is ``configured`` some time after, what a load of a snapshot
    needs: a process that boots shall not pay for that in memory.
    """
    with trio.move_on_after(IDLE_S):
        await server.answered_once.wait()
    load(_OF_A_START)
    await trio.sleep(IDLE_S)
    if not configured():
        load(_OF_A_LOAD)


def load(modules: Iterable[str] = _OF_A_START) -> None:
    """Import modules that will be needed; the collector need not look at them."""
    gc.disable()
    try:
        for name in modules:
            import_module(name)
        gc.freeze()
    finally:
        gc.enable()
