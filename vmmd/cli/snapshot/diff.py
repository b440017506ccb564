"""``vmmd snapshot diff``: compare two state files, path by path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import NO, OK, Command, show
from vmmd.cli.snapshot.files import load
from vmmd.errors import SnapshotError
from vmmd.saved import RECORDS
from vmmd.snapshot_view import (
    Change,
    changes,
    header_view,
    memory_changes,
    record_name,
    record_view,
)
from vmmd.state.translate import translate_up

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from vmmd.state.snapshot import Entry, SnapshotFile


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "diff",
        "Compare two state files, path by path; records of older versions are "
        "brought to the newest first. The header differs between any two creates: "
        "--records leaves it and the memory out.",
        "they differ",
    )
    command.parser.add_argument("before", metavar="A", help="a state file")
    command.parser.add_argument("after", metavar="B", help="another")
    command.parser.add_argument(
        "--records", action="store_true", help="compare the records alone"
    )
    return command.run(argv, _diff)


def _diff(arguments: argparse.Namespace) -> int:
    before, after = load(arguments.before), load(arguments.after)
    found = False
    for line in _lines(before, after, records_alone=arguments.records):
        show(line)
        found = True
    return NO if found else OK


def _lines(
    before: SnapshotFile, after: SnapshotFile, *, records_alone: bool
) -> Iterator[str]:
    if not records_alone:
        old, new = before.header, after.header
        yield from _named(
            "header", changes(header_view(old), header_view(new), decimal=True)
        )
        yield from _named("memory", memory_changes(old.manifest, new.manifest))
    olds, news = _records(before), _records(after)
    for name in [*olds, *(name for name in news if name not in olds)]:
        if name not in news:
            yield f"{name}: only in A"
        elif name not in olds:
            yield f"{name}: only in B"
        else:
            yield from _named(name, _record(olds[name], news[name]))


def _record(before: Entry, after: Entry) -> Iterator[Change]:
    if before.version != after.version:
        yield Change("version", str(before.version), str(after.version))
    yield from changes(record_view(before), record_view(after))


def _records(file: SnapshotFile) -> Mapping[str, Entry]:
    """By name, in their newest versions if that can be."""
    try:
        newest = translate_up(file, RECORDS)
    except SnapshotError:
        newest = file
    return {record_name(entry): entry for entry in newest.entries}


def _named(where: str, found: Iterator[Change]) -> Iterator[str]:
    for change in found:
        match change:
            case Change(path, None, str(after)):
                yield f"{where}: {path}: + {after}"
            case Change(path, str(before), None):
                yield f"{where}: {path}: - {before}"
            case Change(path, before, after):
                yield f"{where}: {path}: {before} -> {after}"
