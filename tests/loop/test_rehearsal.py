"""After a rehearsal a load makes nothing that it could have found made."""

from __future__ import annotations

from tests.helpers.program import printed_by

# Prints the schemas that are missing, and the modules that a load still imports.
LEFT = """
import sys, trio
from vmmd.loop.preload import ready_to_load
from vmmd.saved import RECORDS
from vmmd.state import codec
from vmmd.state.snapshot import Header

ready_to_load()
from vmmd.loop.rehearsal import rehearse
trio.run(rehearse, lambda: True)
print([cls.__name__ for cls in (Header, *RECORDS) if cls not in codec._SCHEMAS])
print([name for name in ["vmmd.loop.snapshot_load", "vmmd.loop.vm_state"] if name not in sys.modules])
"""

# Prints how often a rehearsal that is not wanted for long asks whether it is.
GIVES_UP = """
import trio
from vmmd.loop.rehearsal import rehearse

asked = []

def wanted():
    asked.append(None)
    return len(asked) < 3

trio.run(rehearse, wanted)
print(len(asked))
"""


def test_a_load_finds_schemas_and_modules_made() -> None:
    assert printed_by(LEFT).splitlines()[:2] == ["[]", "[]"]


def test_it_ends_when_it_is_not_wanted_any_more() -> None:
    assert printed_by(GIVES_UP) == "3\n"
