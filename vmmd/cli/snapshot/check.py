"""``vmmd snapshot check``: finish or undo a create that was interrupted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import NO, OK, Command, show
from vmmd.cli.snapshot.files import PAIR_HELP, load, pair_of
from vmmd.cli.snapshot.verify import open_memory
from vmmd.errors import HostError, VmmdError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from vmmd.cli.snapshot.files import Pair
    from vmmd.loop.commit import Names


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "check",
        "Look whether a create or rebase of this snapshot was interrupted. If all of "
        "it was written it is finished, else what is left of it is removed. Then see "
        "that the two files belong together; `verify` reads their contents.",
        "there is no snapshot",
    )
    command.parser.add_argument(
        "files", metavar="FILE", nargs="+", help=f"{PAIR_HELP}, or STATE MEM"
    )
    command.parser.add_argument(
        "--undo",
        action="store_true",
        help="go back to the snapshot before, where that is still there",
    )

    def work(arguments: argparse.Namespace) -> int:
        if len(arguments.files) > len(("state", "mem")):
            command.parser.error("give DIR, or STATE MEM")
        files = pair_of(arguments.files)
        for line in settle(files, undo_all=arguments.undo):
            show(line)
        return _judge(command, files)

    return command.run(argv, work)


def settle(files: Pair, *, undo_all: bool = False) -> Iterator[str]:
    """End what was interrupted, with a line for each. HostError, OSError."""
    from vmmd.loop.commit import can_finish, finish_left, interrupted, is_alive, undo

    for names in interrupted(files.state, files.memory):
        if is_alive(names):
            text = (
                f"snapshot {names.snapshot_id} is being written now; wait for its end"
            )
            raise HostError(f"{files.memory}: {text}")
        _refuse_stray(names, undo_all=undo_all)
        end = "undone"
        if not _is_done(names) and (undo_all or not can_finish(names)):
            undo(names)
        else:
            why = finish_left(names)
            end = f"undone: {why}" if why else "finished"
        yield f"{files.state}: snapshot {names.snapshot_id} was interrupted: {end}"


def _refuse_stray(names: Names, *, undo_all: bool) -> None:
    """Leave alone what the other half of may still be somewhere."""
    from vmmd.loop.commit import stray

    other = stray(names)
    if other and not _is_done(names):
        if os.path.exists(names.merging):  # half of it is in the memory file
            raise HostError(other)
        if not undo_all:
            raise HostError(f"{other}; where those are gone, --undo clears it away")


def _is_done(names: Names) -> bool:
    """Whether the state file is there already, so that only the rest is left."""
    try:
        return load(names.state).header.snapshot_id == names.snapshot_id
    except VmmdError:
        return False  # not there, or damaged: what was interrupted replaces it


def _judge(command: Command, files: Pair) -> int:
    """Whether what is there now is a snapshot."""
    from vmmd.loop.commit import interrupted

    if not os.path.exists(files.state):
        left = interrupted(files.state, files.memory)
        older = [n.state_previous for n in left if os.path.exists(n.state_previous)]
        hint = f"; {' '.join(older)} is one before it" if older else ""
        command.trouble(f"{files.state}: there is no snapshot{hint}")
        return NO
    header = load(files.state).header
    os.close(open_memory(files, header))
    kind = header.manifest.kind
    show(f"{files.state}: snapshot {header.snapshot_id}, {kind}, is complete")
    return OK
