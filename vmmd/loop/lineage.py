"""Where a running VM's memory came from, and what has changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.loop.dirty import DirtyUnion
from vmmd.loop.origin import NOWHERE

if TYPE_CHECKING:
    from vmmd.loop.board import Board
    from vmmd.loop.snapshot_load import Loaded
    from vmmd.state.manifest import MemoryManifest


class Lineage:
    """What one create leaves for the next: of a booted VM, or of a loaded one.

    ``parent_id`` is the snapshot that the next Diff is relative to: the last one
    made, or the one loaded; None: there is none, and a Diff holds all.
    ``manifest`` is of that one's memory file, None if nobody knows.
    """

    def __init__(self, board: Board, loaded: Loaded | None = None) -> None:
        self.origin = NOWHERE if loaded is None else loaded.origin
        self.parent_id = None if loaded is None else loaded.snapshot_id
        self.manifest = None if loaded is None else loaded.manifest
        log = board.vm.get_dirty_log if board.tracks_dirty_pages else None
        self.dirty = DirtyUnion(board.machine.memory, log)

    def committed(self, snapshot_id: str, manifest: MemoryManifest) -> None:
        """A snapshot has its files: what it holds need not be in the next Diff.

        With tracking off nobody knows what changes from here on: the next Diff
        is relative to the same snapshot as this one.
        """
        self.dirty.commit()
        if self.dirty.tracked:
            self.parent_id, self.manifest = snapshot_id, manifest
