"""GET /vmmd/state's view of a living guest."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from vmmd.loop import state_view
from vmmd.loop.selftest import CODE, LOAD, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vmmd.loop.board import Board


@asynccontextmanager
async def waiting_guest() -> AsyncIterator[Board]:
    """The self-test's guest, in its loop that waits for input."""
    async with served(CODE) as guest:
        guest.board.run()
        await trio.lowlevel.wait_readable(guest.console_out)
        yield guest.board


async def test_a_running_guest_is_shown_and_goes_on() -> None:
    async with waiting_guest() as board:
        shown = await state_view.view(board, "Running")
        (vcpu,) = state_view.vcpus(board)
        assert shown["phase"] == "Running"
        # It goes on: sooner or later a look finds more exits than the first.
        with trio.fail_after(10):
            while _exits(await state_view.view(board, "Running")) <= _exits(shown):
                await trio.lowlevel.checkpoint()
        assert vcpu["last_exits"]


async def test_a_paused_guest_shows_where_it_is() -> None:
    async with waiting_guest() as board:
        await board.pause()
        await state_view.view(board, "Paused")
        (vcpu,) = state_view.vcpus(board)
        registers, code = vcpu["registers"], vcpu["code_at_rip"]
        assert isinstance(registers, dict)
        assert isinstance(code, str)
        at = int(str(registers["rip"]), 16) - LOAD
        assert 0 <= at < len(CODE)
        assert (bytes.fromhex(code) + CODE).startswith(CODE[at:][:16])
        assert _exits(await state_view.view(board, "Paused")) == _exits(
            await state_view.view(board, "Paused")
        )


def _exits(shown: object) -> int:
    match shown:
        case {"vcpus": [{"counters": {"exits": {"IO": int(count)}}}]}:
            return count
    raise AssertionError(f"no count of exits in {shown}")
