"""The `vmmd` command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VMMD = (sys.executable, "-m", "vmmd")
DEADLINE_S = 60


def vmmd(*arguments: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """What a command printed; AssertionError if it ends with another code."""
    done = subprocess.run(
        [*VMMD, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return done


def environment() -> dict[str, str]:
    """Where a command finds this vmmd, in whatever folder it runs."""
    return os.environ | {"PYTHONPATH": str(ROOT)}
