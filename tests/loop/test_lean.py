"""The daemon's trio is whole, and what it does not use is not there."""

from __future__ import annotations

from tests.helpers.program import printed_by

# Prints what is left of the stand-ins in a process that is ready to load.
LEFT = """
import sys
from vmmd.loop.lean import UNUSED, Later, import_trio

import_trio()
import vmmd.loop.daemon
from vmmd.loop import preload

preload.load(preload.ready_to_start)
preload.load(preload.ready_to_load)
print([name for name in UNUSED if not isinstance(sys.modules[name], Later)])
print([name for name in ("ctypes", "_ssl", "_hashlib") if name in sys.modules])
"""

# Uses what a stand-in stands for, in each way in which it may be imported.
USED = """
import sys
from vmmd.loop.lean import UNUSED, import_trio

import_trio()
import trio
import ssl

async def main():
    process = await trio.run_process(["echo", "run"], capture_stdout=True)
    print(process.stdout.decode().strip(), await trio.to_thread.run_sync(len, "ab"))

trio.run(main)
print(ssl.create_default_context().verify_mode.name, sys.modules["ssl"].__file__ != "")
from traceback import format_exc
import ctypes.util
print(format_exc().strip(), ctypes.util.find_library("c"))
for name in UNUSED:
    print(getattr(__import__(name), "absent", "-"), end="")
"""


def run(program: str) -> list[str]:
    return printed_by(program).splitlines()


def test_a_monitor_wants_nothing_of_what_is_left_out() -> None:
    assert run(LEFT) == ["[]", "[]"]


def test_who_wants_something_gets_the_real_one() -> None:
    assert run(USED) == [
        "run 2",
        "CERT_REQUIRED True",
        "NoneType: None libc.so.6",
        "-" * 8,
    ]
