"""``python -m bench [NAME...] [--pairs N] [--json FILE]``: the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness import Bench, Result, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

# Modules of this folder that have BENCHES, a tuple of Bench.
MODULES: tuple[str, ...] = (
    "drain",
    "exits",
    "memory_file",
    "net",
    "process",
    "restore",
    "state",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the named figures, or all; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    results = []
    print(f"{'figure':28} {'ours':>10} {'twin':>10} unit     ratio  spread  goal")
    for bench in _chosen(options.names):
        results.append(measure(bench, options.pairs))
        print(_row(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([r.as_dict() for r in results], indent=1))
    return 1 if any(result.met is False for result in results) else 0


def _chosen(names: Sequence[str]) -> list[Bench]:
    benches: list[Bench] = []
    for module in MODULES:
        benches.extend(importlib.import_module(f"bench.{module}").BENCHES)
    return [b for b in benches if not names or any(n in b.name for n in names)]


def _row(result: Result) -> str:
    goal = "" if result.goal is None else f"{result.goal:5.2f}"
    if result.limit is not None:
        goal += f" <={result.limit:g} {result.unit}"
    mark = {True: " met", False: " MISSED", None: ""}[result.met]
    return (
        f"{result.name:28} {result.ours:10.2f} {result.twin:10.2f} {result.unit:8} "
        f"{result.ratio:5.2f}  ±{result.spread:5.2f}  {goal}{mark}"
    )


if __name__ == "__main__":
    sys.exit(main())
