"""Loads what a start needs before it is asked for.

KVM, devices and boot are not wanted for the first answer, and take longer to
import than a machine takes to build. They come right after that answer, in one
go: whoever starts a machine has configured it first.
"""

from __future__ import annotations

import gc
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from vmmd.loop.board import Board

    class Answering(Protocol):
        """A server that tells of its answers."""

        answered_once: trio.Event

        async def answered(self) -> None:
            """Wait until nobody waits for an answer."""

    class Asked(Protocol):
        """What was asked for so far."""

        boot_path: bool
        loading: bool
        board: Board | None


IDLE_S = 0.05
"""Nobody asks anything: load it now. Ends every timer of an idle process."""


async def preload(server: Answering, asked: Asked) -> None:
    """Wait for the first answer, or for nobody to ask, then load what a start needs.

    And if nothing is configured some time after, what a load of a snapshot
    needs: a process that boots shall not pay for that in memory. One that has
    its guest, of a snapshot that was the first thing asked for, needs neither.
    """
    with trio.move_on_after(IDLE_S):
        await server.answered_once.wait()
    await server.answered()
    if asked.board is None:
        load(ready_to_start)
        await trio.sleep(IDLE_S)
        if _is_unused(asked):
            load(ready_to_load)
            await _rehearse(asked)


def _is_unused(asked: Asked) -> bool:
    return asked.board is None and not asked.boot_path and not asked.loading


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


def import_load() -> None:
    """Have the modules that a load of a snapshot needs."""
    for name in ("snapshots", "snapshot_load", "vm_state"):
        import_module(f"vmmd.loop.{name}")


def ready_to_load() -> None:
    """Have what a load of a snapshot needs, and what rehearses it."""
    import_load()
    import_module("vmmd.loop.rehearsal")


async def _rehearse(asked: Asked) -> None:
    from vmmd.loop.rehearsal import rehearse

    await rehearse(partial(_is_unused, asked))
