"""What a start needs is there before it is asked for, and not while somebody waits."""

from __future__ import annotations

import pytest

from tests.helpers.program import printed_by

# Prints whether the start is loaded: while somebody waits for an answer, and after.
LOADED = """
import sys, trio, trio.testing
from vmmd.loop import daemon, preload

class Server:
    answered_once = trio.Event()
    all_answered = trio.Event()

    async def answered(self):
        await self.all_answered.wait()

class Supervisor:
    boot_path = sys.argv[2] == "configured"
    loading = sys.argv[2] == "a load"
    board = object() if sys.argv[2] == "a guest" else None

async def main():
    server = Server()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(preload.preload, server, Supervisor())
        await trio.testing.wait_all_tasks_blocked()
        if sys.argv[1] == "answer":
            server.answered_once.set()
        else:
            clock.jump(preload.IDLE_S)
        await trio.testing.wait_all_tasks_blocked()
        print("vmmd.loop.start" in sys.modules)
        server.all_answered.set()
        await trio.testing.wait_all_tasks_blocked()
        print("vmmd.loop.start" in sys.modules)
        print("vmmd.loop.snapshot_load" in sys.modules)
        clock.jump(preload.IDLE_S)
        await trio.testing.wait_all_tasks_blocked()
        print("vmmd.loop.snapshot_load" in sys.modules)

clock = trio.testing.MockClock()
trio.run(main, clock=clock)
"""


EXPECTED = {
    "configured": ["False", "True", "False", "False"],
    "a load": ["False", "True", "False", "False"],
    "nothing": ["False", "True", "False", "True"],
    "a guest": ["False", "False", "False", "False"],
}


@pytest.mark.parametrize("has", EXPECTED)
@pytest.mark.parametrize("after", ["answer", "idling"])
def test_a_start_is_prepared_first_then_a_load_if_neither_is_under_way(
    after: str, has: str
) -> None:
    assert printed_by(LOADED, after, has).split() == EXPECTED[has]
