"""Which releases a snapshot could be made for now: ``GET /vmmd/snapshot/targets``.

A trial of the checks that a create makes, without its side effects: nothing is
written, no file is looked at, and the guest goes on as soon as it is read off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.errors import ConfigError, HostError
from vmmd.loop.snapshot_create import read_state
from vmmd.saved import RECORDS
from vmmd.state.outlook import outlook

if TYPE_CHECKING:
    from vmmd.actions import JsonValue
    from vmmd.loop.snapshot_create import Source
    from vmmd.state.outlook import Prospect


async def targets(source: Source) -> dict[str, JsonValue]:
    """Every release, newest first, with what it would lose or why it is refused.

    A running guest is stopped for the milliseconds that reading it takes.
    ConfigError if KVM does not let it be read.
    """
    try:
        if not source.paused:
            await source.board.pause()
        state = read_state(source)
    except HostError as error:
        raise ConfigError(str(error)) from error
    finally:
        if not source.paused:
            source.board.run()
    return {"targets": [shown(each) for each in reversed(outlook(state, RECORDS))]}


def shown(prospect: Prospect) -> JsonValue:
    """One release: ``refusal`` is what a create with this ``version`` would answer,
    or null."""
    return {
        "version": prospect.release,
        "refusal": prospect.refused,
        "losses": [
            {
                "record": item.kind,
                "id": item.id,
                "fields": [*item.paths],
                "text": item.loss.text,
            }
            for item in prospect.lost
        ],
    }
