"""``vmmd snapshot translate``: write a state file for another release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import NO, OK, Command, show
from vmmd.cli.snapshot.files import load, write
from vmmd.errors import ConfigError, SnapshotError
from vmmd.saved import RECORDS
from vmmd.state.outlook import outlook
from vmmd.state.record import Refusal
from vmmd.state.snapshot import encode
from vmmd.state.translate import translate_down, translate_up, upgraded
from vmmd.state.versions import RELEASES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from vmmd.state.snapshot import SnapshotFile


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "translate",
        "Write FILE to OUT as the release TARGET has it, up or down, saying what is "
        "lost on the way. Its memory file serves both. OUT may be FILE.",
        "the release refuses this state, as a create for it would",
    )
    add = command.parser.add_argument
    add("file", metavar="FILE", help="the state file")
    add("target", metavar="TARGET", help=f"a release, {RELEASES[0]} to {RELEASES[-1]}")
    add("out", metavar="OUT", nargs="?", help="where to")
    add("--dry-run", action="store_true", help="only say what would be lost")

    def work(arguments: argparse.Namespace) -> int:
        if arguments.out is None and not arguments.dry_run:
            command.parser.error("OUT is needed, or --dry-run")
        return _translate(command, arguments)

    return command.run(argv, work)


def _translate(command: Command, arguments: argparse.Namespace) -> int:
    target = arguments.target
    if target not in RELEASES:
        known = f"there are {', '.join(RELEASES)}"
        raise ConfigError(f"{target}: there is no such release; {known}")
    newest = _newest(arguments.file)
    (prospect,) = outlook(newest, RECORDS, (target,))
    for item in prospect.lost:
        verb = "refused" if isinstance(item.loss, Refusal) else "lost"
        show(f"{verb}: {' '.join(str(item).split())}")
    if prospect.refused is not None:
        command.trouble(f"{arguments.file}: {prospect.refused}")
        return NO
    if arguments.dry_run:
        show(f"{arguments.file} can be written for {target}")
        return OK
    translated, _ = translate_down(newest, target, RECORDS)
    write(arguments.out, encode(translated))
    show(f"{arguments.out}: for {target}")
    return OK


def _newest(path: str) -> SnapshotFile:
    """A file's newest records, every field judged. SnapshotError names the file."""
    file = load(path)
    try:
        newest = translate_up(file, RECORDS)
        upgraded(newest, RECORDS)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from error
    return newest
