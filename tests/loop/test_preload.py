"""What a start needs is there before it is asked for, and not before an answer."""

from __future__ import annotations

import pytest

from tests.helpers.program import printed_by

# Prints whether the start is loaded: before an answer, and after.
LOADED = """
import sys, trio, trio.testing
from vmmd.loop import daemon, preload

class Server:
    pass

async def main():
    server = Server()
    server.answered_once = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(preload.preload, server, lambda: sys.argv[2] == "yes")
        await trio.testing.wait_all_tasks_blocked()
        print("vmmd.loop.start" in sys.modules)
        if sys.argv[1] == "answer":
            server.answered_once.set()
            await trio.testing.wait_all_tasks_blocked()
        else:
            clock.jump(preload.IDLE_S)
            await trio.testing.wait_all_tasks_blocked()
        print("vmmd.loop.start" in sys.modules)
        print("vmmd.loop.snapshot_load" in sys.modules)
        clock.jump(preload.IDLE_S)
        await trio.testing.wait_all_tasks_blocked()
        print("vmmd.loop.snapshot_load" in sys.modules)

clock = trio.testing.MockClock()
trio.run(main, clock=clock)
"""


@pytest.mark.parametrize("configured", ["yes", "no"])
@pytest.mark.parametrize("after", ["answer", "idling"])
def test_a_start_is_prepared_first_and_a_load_where_nothing_is_configured(
    after: str, configured: str
) -> None:
    assert printed_by(LOADED, after, configured).split() == [
        *("False", "True", "False"),
        str(configured == "no"),
    ]
