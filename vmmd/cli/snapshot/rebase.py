"""``vmmd snapshot rebase``: merge diffs into their base."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from vmmd.cli.snapshot.check import settle
from vmmd.cli.snapshot.command import OK, Command, Meter, show, size_text
from vmmd.cli.snapshot.files import PAIR_HELP, load, pair

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vmmd.cli.snapshot.files import Pair
    from vmmd.loop.rebase import Part


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "rebase",
        "Merge diffs, oldest first, into the snapshot that they are relative to. BASE "
        "becomes the last diff's snapshot, which is then whole; the diffs stay as they "
        "are. BASE is what it was until all is written; killed in between, "
        "`vmmd snapshot check BASE` ends it. VMs that run from BASE go on.",
        "is not used",
    )
    command.parser.add_argument("base", metavar="BASE", help=PAIR_HELP)
    command.parser.add_argument(
        "diffs", metavar="DIFF", nargs="+", help="each as BASE is given"
    )
    return command.run(argv, _rebase)


def _rebase(arguments: argparse.Namespace) -> int:
    import trio

    from vmmd.loop.rebase import chain, rebase

    files = pair(arguments.base)
    for line in settle(files):
        show(line)
    base, *diffs = [_part(each) for each in (files, *map(pair, arguments.diffs))]
    left = chain(base, diffs)
    if not left:
        show(f"{arguments.base}: has all of that already")
        return OK
    with closing(Meter("merging memory")) as meter:
        made = trio.run(partial(rebase, base, left, meter))
    count = f"{len(left)} diff{'s' if len(left) > 1 else ''} merged"
    data = size_text(made.data_pages * made.page_size)
    show(
        f"{arguments.base}: {count}: snapshot {left[-1].id}, {made.kind}, {data} of data"
    )
    return OK


def _part(files: Pair) -> Part:
    from vmmd.loop.rebase import Part

    return Part(files.state, files.memory, load(files.state))
