"""``vmmd snapshot``: make snapshots, look at them, change and check them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "create": "save a running VM",
    "targets": "which releases a running VM could be saved for now",
    "inspect": "show what a state file holds",
    "diff": "compare two state files, path by path",
    "translate": "write a state file for another release",
    "check": "finish or undo a create that was interrupted",
    "rebase": "merge diffs into the snapshot that they are relative to",
    "verify": "compare a memory file with what its state file says of it",
}
_USAGE_EXIT_CODE = 2


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; its exit code."""
    match argv:
        case [] | ["--help" | "-h" | "help", *_]:
            print(_usage())
            return 0
        case [name, *rest] if name in COMMANDS:
            from importlib import import_module

            return int(import_module(f"vmmd.cli.snapshot.{name}").main(rest))
        case [name, *_]:
            print(f"vmmd snapshot: no command '{name}'\n\n{_usage()}", file=sys.stderr)
    return _USAGE_EXIT_CODE


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}   {text}" for name, text in COMMANDS.items()]
    about = "Each has --help. To restore: vmmd run --restore DIR"
    return "\n".join(
        ["usage: vmmd snapshot COMMAND [ARGUMENT ...]", "", *lines, "", about]
    )
