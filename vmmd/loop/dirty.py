"""Which pages a Diff needs: KVM's log, the host's writes, and what is left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.loop.pages import first_pages, join

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.memory import GuestMemory


class DirtyUnion:
    """The pages written since the last snapshot that was committed.

    ``log(slot, size)`` is KVM's dirty log of a region, which reading clears
    (``Vm.get_dirty_log``); slots are numbered as ``memory.regions``. None:
    tracking is off, and the host's writes count since memory was mapped.
    """

    def __init__(
        self, memory: GuestMemory, log: Callable[[int, int], bytes] | None = None
    ) -> None:
        self._memory = memory
        self._log = log
        self._pages = 0

    @property
    def tracked(self) -> bool:
        """Whether KVM tells which pages the guest wrote."""
        return self._log is not None

    def collect(self) -> int:
        """All pages since the last commit. The guest must be paused.

        Keeps them until :meth:`commit`, so a create that fails loses none: ask
        again as often as you like. What ``log`` raises goes up, with nothing lost.
        """
        self._pages |= join(self._memory, self._memory.dirty_bitmaps())
        if self._log is not None:
            self._memory.clear_dirty()
            firsts = first_pages(self._memory)
            for slot, (region, first) in enumerate(
                zip(self._memory.regions, firsts, strict=True)
            ):
                bitmap = self._log(slot, len(region.buffer))
                self._pages |= int.from_bytes(bitmap, "little") << first
        return self._pages

    def commit(self) -> None:
        """The pages that were collected are safe in a file: forget them.

        With tracking off nothing is forgotten: a Diff then has all that was
        written since memory was mapped.
        """
        if self._log is not None:
            self._pages = 0
