"""``vmmd snapshot verify``: compare a memory file with its state file."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import NO, OK, Command, Meter, show
from vmmd.cli.snapshot.files import PAIR_HELP, load, pair_of
from vmmd.errors import HostError
from vmmd.state.manifest import BLOCK_SIZE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vmmd.cli.snapshot.files import Pair
    from vmmd.state.snapshot import Header

_SHOWN = 16


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "verify",
        "Read a memory file and compare it with what its state file says of it, "
        "block by block.",
        "the memory is not what it should be",
    )
    command.parser.add_argument(
        "files", metavar="FILE", nargs="+", help=f"{PAIR_HELP}, or STATE MEM"
    )

    def work(arguments: argparse.Namespace) -> int:
        if len(arguments.files) > len(("state", "mem")):
            command.parser.error("give DIR, or STATE MEM")
        return _verify(pair_of(arguments.files))

    return command.run(argv, work)


def open_memory(files: Pair, header: Header) -> int:
    """The memory file of a state file, of its size and id. HostError names it.

    A Diff that a tool merged which knows no ids has its parent's.
    """
    from vmmd.loop.origin import get_id, open_memory_file

    manifest = header.manifest
    merged = manifest.parent_id and get_id(files.memory) == manifest.parent_id
    wanted = manifest.parent_id if merged else header.snapshot_id
    try:
        return open_memory_file(files.memory, manifest.size, wanted)
    except HostError as error:
        raise HostError(f"{files.memory}: {error}") from error


def _verify(files: Pair) -> int:
    from vmmd.loop.blocks import verify

    header = load(files.state).header
    manifest = header.manifest
    fd = open_memory(files, header)
    try:
        with closing(Meter("reading memory")) as meter:
            found = verify(fd, files.memory, manifest, meter)
    finally:
        os.close(fd)
    for index in found.wrong[:_SHOWN]:
        show(f"{_block(files, index)}: is not what the state file says")
    for index in found.stray[:_SHOWN]:
        show(f"{_block(files, index)}: has data where the state file has none")
    bad = len({*found.wrong, *found.stray})
    if bad:
        show(f"{files.memory}: {bad} of {manifest.block_count} blocks are wrong")
        return NO
    show(f"{files.memory}: {manifest.block_count} blocks as the state file says")
    if found.unknown:
        show(f"  {len(found.unknown)} of them without a checksum to compare with")
    return OK


def _block(files: Pair, index: int) -> str:
    return f"{files.memory}: block {index} at byte {index * BLOCK_SIZE:#x}"
