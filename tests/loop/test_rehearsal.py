"""After a rehearsal a load makes nothing that it could have found made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Prints the schemas that are missing, and the modules that a load still imports.
LEFT = """
import sys
from vmmd.loop import snapshots
from vmmd.loop.rehearsal import rehearse
from vmmd.saved import RECORDS
from vmmd.state import codec
from vmmd.state.snapshot import Header

rehearse()
print([cls.__name__ for cls in (Header, *RECORDS) if cls not in codec._SCHEMAS])
print([name for name in ["vmmd.loop.vm_state"] if name not in sys.modules])
"""


def test_a_load_finds_schemas_and_modules_made() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LEFT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert found.stdout.split("\n")[:2] == ["[]", "[]"]
