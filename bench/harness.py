"""Pairs of measurements: ours and its denominator in turn, A B A B, in one run."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Bench:
    """One figure: ``ours()`` and ``twin()`` each measure once and return it.

    ``goal`` is the ratio ours / twin that must be reached: at most it where
    lower is better, at least it where higher is. None: reported only.
    ``limit`` is the most that ours may be, for what has no twin or needs none.
    """

    name: str
    unit: str
    ours: Callable[[], float]
    twin: Callable[[], float] = lambda: nan
    goal: float | None = None
    higher_is_better: bool = False
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Medians of both sides and of the pairs' ratios; spread is half their range."""

    name: str
    unit: str
    ours: float
    twin: float
    ratio: float
    spread: float
    pairs: int
    goal: float | None
    limit: float | None
    met: bool | None

    def as_dict(self) -> dict[str, object]:
        """The result as JSON can hold it: what there is no twin for is null."""
        return {
            key: None if isinstance(value, float) and isnan(value) else value
            for key, value in asdict(self).items()
        }


def measure(bench: Bench, pairs: int) -> Result:
    """Run ``pairs`` pairs after one unmeasured pair."""
    bench.ours(), bench.twin()
    rows = [(bench.ours(), bench.twin()) for _ in range(pairs)]
    ratios = sorted(ours / twin for ours, twin in rows)
    ratio = median(ratios)
    return Result(
        name=bench.name,
        unit=bench.unit,
        ours=median(ours for ours, _ in rows),
        twin=median(twin for _, twin in rows),
        ratio=ratio,
        spread=(ratios[-1] - ratios[0]) / 2,
        pairs=pairs,
        goal=bench.goal,
        limit=bench.limit,
        met=_met(bench, median(ours for ours, _ in rows), ratio),
    )


def build_twin(source: str, *extra: str) -> Path:
    """Compile ``bench/<source>`` with gcc -O2; the program's path."""
    folder = Path(tempfile.mkdtemp(prefix="vmmd-bench-"))
    program = folder / Path(source).stem
    command = ["gcc", "-O2", "-std=gnu11", "-pthread", "-I", str(HERE.parent)]
    command += ["-o", str(program), str(HERE / source), *extra]
    subprocess.run(command, check=True)
    return program


def build_library(source: str) -> Path:
    """Compile a C file with gcc -O2 into a shared library; its path."""
    folder = Path(tempfile.mkdtemp(prefix="vmmd-bench-"))
    library = folder / f"{Path(source).stem}.so"
    command = ["gcc", "-O2", "-std=gnu11", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), source], check=True)
    return library


def _met(bench: Bench, ours: float, ratio: float) -> bool | None:
    if bench.limit is not None and ours > bench.limit:
        return False
    if bench.goal is None:
        return None if bench.limit is None else True
    return ratio >= bench.goal if bench.higher_is_better else ratio <= bench.goal
