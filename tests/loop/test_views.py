"""Our own paths, as far as they need no guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.helpers.options import options
from vmmd import actions as a
from vmmd.loop.snapshots import Progress
from vmmd.loop.supervisor import Supervisor
from vmmd.loop.views import view_of

if TYPE_CHECKING:
    from pathlib import Path


async def test_progress_is_of_the_create_under_way(tmp_path: Path) -> None:
    supervisor = Supervisor(options(str(tmp_path / "log")))
    log = supervisor.options.logger.channel("main", "test")
    asked = a.GetSnapshotProgress()
    assert await view_of(supervisor, asked) == {
        "active": False,
        "done_bytes": 0,
        "size_bytes": 0,
    }
    supervisor.progress = progress = Progress(log)
    progress(3, 10)
    assert await view_of(supervisor, asked) == {
        "active": True,
        "done_bytes": 3,
        "size_bytes": 10,
    }
