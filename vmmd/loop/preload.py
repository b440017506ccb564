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
    from collections.abc import Callable
    from typing import Protocol

    class Answering(Protocol):
        """A server that tells of its first answer."""

        answered_once: trio.Event


IDLE_S = 0.05
"""Nobody asks anything: load it now. Ends every timer of an idle process."""


async def preload(server: Answering, configured: Callable[[], bool]) -> None:
    """Wait for the first answer, or for nobody to ask, then load what a start needs.

    And if nothing is ``configured`` some time after, what a load of a snapshot
    needs: a process that boots shall not pay for that in memory.
    """
    with trio.move_on_after(IDLE_S):
        await server.answered_once.wait()
    load(ready_to_start)
    await trio.sleep(IDLE_S)
    if not configured():
        load(ready_to_load)


def load(ready: Callable[[], None]) -> None:
    """Get ready for what will be asked; the collector need not look at it."""
    gc.disable()
    try:
        ready()
        gc.freeze()
    finally:
        gc.enable()


def ready_to_start() -> None:
    """Have what a boot needs."""
    import_module("vmmd.loop.start")


def ready_to_load() -> None:
    """Have what a load of a snapshot needs."""
    import_module("vmmd.loop.snapshots")
    from vmmd.loop.rehearsal import rehearse

    rehearse()
