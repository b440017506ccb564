"""``vmmd snapshot targets``: which releases a VM could be saved for now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vmmd.cli.snapshot.command import OK, Command, show
from vmmd.client import Client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from vmmd.actions import JsonValue


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = Command(
        "targets",
        "Show which releases a snapshot of this VM could be written for now, what "
        "each would lose, and why others refuse. The guest goes on.",
        "is not used",
    )
    command.parser.add_argument("socket", metavar="SOCKET", help="the VM's API socket")
    command.parser.add_argument("--json", action="store_true", help="as the API has it")
    return command.run(argv, _targets)


def _targets(arguments: argparse.Namespace) -> int:
    with Client(arguments.socket) as client:
        answer = client.get("/vmmd/snapshot/targets")
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return OK
    for target in _maps(answer["targets"]):
        for line in _lines(target):
            show(line)
    return OK


def _lines(target: Mapping[str, JsonValue]) -> Iterator[str]:
    version, refusal = target["version"], target["refusal"]
    if refusal is not None:
        yield f"{version:<8}  refused: {' '.join(str(refusal).split())}"
        return
    lost = list(_maps(target["losses"]))
    yield f"{version:<8}  {'yes, but' if lost else 'yes'}"
    for loss in lost:
        name = f"{loss['record']} {loss['id']}".strip()
        yield f"{'':<8}    {name}: {loss['text']}"


def _maps(value: JsonValue) -> Iterator[Mapping[str, JsonValue]]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item
