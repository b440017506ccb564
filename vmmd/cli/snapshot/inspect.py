"""``vmmd snapshot inspect``: show what a state file holds."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import NO, OK, Command, show, size_text
from vmmd.cli.snapshot.files import content
from vmmd.errors import SnapshotError
from vmmd.snapshot_view import (
    header_view,
    jsonable,
    leaves,
    memory_view,
    record_name,
    record_view,
    text,
)
from vmmd.state.snapshot import survey

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from vmmd.state.snapshot import Header, Survey


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "inspect",
        "Show a state file: header, memory, every record. What the kernel keeps as "
        "bytes is shown by the names of its parts. Of a damaged file, or one from a "
        "newer vmmd, as much as can be read.",
        "something is wrong with the file, and was said",
    )
    command.parser.add_argument("file", metavar="FILE", help="the state file")
    command.parser.add_argument(
        "--json", action="store_true", help="as JSON, bytes in hexadecimal"
    )
    return command.run(argv, _inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    try:
        found = survey(content(arguments.file))
    except SnapshotError as error:
        raise SnapshotError(f"{arguments.file}: {error}") from error
    if arguments.json:
        print(json.dumps(_tree(found), indent=2))
    else:
        for line in _lines(found):
            show(line)
    for fault in found.faults:
        show(f"{arguments.file}: {fault}", sys.stderr)
    return NO if found.faults else OK


def _tree(found: Survey) -> object:
    return {
        "header": jsonable(header_view(found.header)),
        "memory": _memory(found.header),
        "records": [
            {
                "kind": entry.kind,
                "id": entry.id,
                "version": entry.version,
                "optional": entry.optional,
                "fields": jsonable(record_view(entry)),
            }
            for entry in found.entries
        ],
        "faults": [*found.faults],
    }


def _memory(header: Header) -> object:
    try:
        return memory_view(header.manifest)
    except SnapshotError:
        return None  # it is among the faults


def _lines(found: Survey) -> Iterator[str]:
    yield from _header_lines(found.header)
    for entry in found.entries:
        optional = ", optional" if entry.optional else ""
        yield f"{record_name(entry)}: version {entry.version}{optional}"
        for path, value in leaves(record_view(entry)):
            yield f"  {path} = {text(value)}"


def _header_lines(header: Header) -> Iterator[str]:
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(header.time))
    khz = header.tsc_khz
    clock = "unknown" if khz is None else f"{khz} kHz"
    yield f"snapshot {header.snapshot_id}"
    yield f"  parent     {header.parent_id or 'none'}"
    yield f"  release    {header.target_version}"
    by = f"{header.producer} {header.producer_version}"
    yield f"  made       {made} by {by}, format {header.format}"
    yield f"  processor  {header.arch}, {header.cpu_vendor}, {header.cpu_model}"
    yield f"  TSC        {clock}"
    yield f"  kernel     {header.kernel}"
    devices = ", ".join("/".join(device) for device in header.devices)
    yield f"  devices    {devices or 'none'}"
    yield from _memory_lines(header)


def _memory_lines(header: Header) -> Iterator[str]:
    try:
        memory = header.manifest
    except SnapshotError:
        return
    held = size_text(memory.data_pages * memory.page_size)
    yield f"  memory     {memory.kind}, {size_text(memory.size)}, {held} of it data"
    for address, size in memory.regions:
        yield f"             {address:#x} to {address + size:#x}"
    unverified = int.from_bytes(memory.unverified, "little").bit_count()
    if unverified:
        yield f"             {unverified} of {memory.block_count} blocks unverified"
