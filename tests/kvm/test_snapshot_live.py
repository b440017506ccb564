"""The loop while a snapshot is written: it serves, and a fault leaves the guest."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from vmmd import config as c
from vmmd import snapshot_params as p
from vmmd.errors import HostError
from vmmd.loop import state_view
from vmmd.loop.lineage import Lineage
from vmmd.loop.selftest import CODE, served
from vmmd.loop.snapshot_create import Source, Watch, create, read_state
from vmmd.loop.snapshot_files import SnapshotFiles
from vmmd.resources.store import VmResources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vmmd.loop.board import Board

IN_WORKERS = ("memory-sealed", "state-sealed", "memory-replaced", "state-replaced")
"""Steps at which a worker says that it is there: it may be held up."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def save(
    board: Board, lineage: Lineage, folder: Path, at_step: Callable[[str], None]
) -> None:
    machine = c.MachineConfig(mem_size_mib=board.machine.memory.size >> 20)
    source = Source(board, VmResources(machine), lineage, paused=True)
    params = p.SnapshotCreateParams(
        p.SnapshotType.FULL, str(folder / "s"), str(folder / "m")
    )
    await create(source, params, Watch(print, lambda _done, _size: None, at_step))


@pytest.mark.parametrize("held", IN_WORKERS)
async def test_it_answers_at_every_step_of_a_create(tmp_path: Path, held: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == held:
            reached.set()
            go_on.wait(30)

    async with served(CODE) as guest, trio.open_nursery() as nursery:
        board = guest.board
        board.run()
        await board.pause()
        nursery.start_soon(save, board, Lineage(board), tmp_path, hold)
        await trio.to_thread.run_sync(reached.wait)
        shown = await state_view.view(board, "Paused")
        assert shown["phase"] == "Paused"
        assert not go_on.is_set()
        go_on.set()
    assert names(tmp_path) == {"s", "m"}


@pytest.mark.parametrize("step", [s for s in SnapshotFiles.STEPS if s != "merge-begun"])
async def test_a_fault_at_any_step_leaves_a_guest_that_can_be_saved(
    tmp_path: Path, step: str
) -> None:
    def fail(reached: str) -> None:
        if reached == step:
            raise OSError(28, "No space left on device")

    async with served(CODE) as guest:
        board = guest.board
        board.run()
        await board.pause()
        lineage = Lineage(board)
        with pytest.raises((HostError, OSError), match="No space left on device"):
            await save(board, lineage, tmp_path, fail)
        # From the last rename on it is whole, though not known to be durable.
        whole = step in ("state-replaced", "committed")
        assert names(tmp_path) == ({"s", "m"} if whole else set())
        await save(board, lineage, tmp_path, lambda _step: None)
        assert names(tmp_path) == {"s", "m"}
        board.run()


async def test_to_read_the_state_writes_no_memory() -> None:
    """It is read while memory is written."""
    async with served(CODE) as guest:
        board = guest.board
        board.run()
        await board.pause()
        memory, size = board.machine.memory, board.machine.memory.size
        machine = c.MachineConfig(mem_size_mib=size >> 20)
        before = memory.read(0, size)
        read_state(Source(board, VmResources(machine), Lineage(board), paused=True))
        assert memory.read(0, size) == before
