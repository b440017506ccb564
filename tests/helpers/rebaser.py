"""A process that rebases, and dies where it is told to.

python -m tests.helpers.rebaser STEP BASE DIFF...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trio

from tests.helpers.memory_files import nobody
from vmmd.loop.rebase import Part, chain, rebase
from vmmd.state.snapshot import decode


def part(folder: Path) -> Part:
    """A folder's snapshot."""
    state = folder / "vm.state"
    file = decode(state.read_bytes())
    return Part(str(state), str(folder / "vm.mem"), file)


async def merge(last_step: str, base: Part, diffs: list[Part]) -> None:
    """Merge them, up to ``last_step``."""

    def at_step(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    await rebase(base, chain(base, diffs), nobody, at_step)


if __name__ == "__main__":
    step, *folders = sys.argv[1:]
    first, *rest = (part(Path(folder)) for folder in folders)
    trio.run(merge, step, first, rest)
