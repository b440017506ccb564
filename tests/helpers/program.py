"""A Python program in an interpreter of its own, whose imports are its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 30


def printed_by(program: str, *arguments: str) -> str:
    """What it prints; CalledProcessError if it does not end well."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=_DEADLINE_S,
    ).stdout
