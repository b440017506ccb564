"""The daemon's trio is whole, and what it does not use is not there."""

from __future__ import annotations

from tests.helpers.program import printed_by
from vmmd.loop.lean import UNUSED

# Prints what is left of the stand-ins in a process that is ready to load.
LEFT = """
import sys
from vmmd.loop.lean import UNUSED, Later, import_lean

import_lean("vmmd.loop.daemon")
from vmmd.loop import preload

preload.load(preload.ready_to_start)
preload.load(preload.ready_to_load)
print([name for name in UNUSED if not isinstance(sys.modules[name], Later)])
print([name for name in ("ctypes", "_ssl", "_hashlib") if name in sys.modules])
"""

# Uses what a stand-in stands for, in each way in which it may be imported.
USED = """
import sys
from vmmd.loop.lean import UNUSED, import_lean

import_lean("trio")
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

# Uses what was answered meanwhile by a stand-in, which is the real thing now.
ANSWERED = r"""
import sys
from vmmd.loop.lean import Later, import_lean

import_lean("vmmd.loop.daemon")
import inspect, logging, pathlib, platform, textwrap
import trio

class Faulty(trio.abc.Instrument):
    def before_run(self):
        raise ValueError

async def main():
    await trio.to_thread.run_sync(len, "ab")
    async with trio.Lock():
        print(isinstance(sys.modules["inspect"], Later))

logging.getLogger("trio.abc.Instrument").addFilter(lambda record: print(record.levelname))
trio.run(main, instruments=[Faulty()])
print(inspect.signature(lambda one: one), inspect.cleandoc(" a\n b"), textwrap.dedent(" a"))
print(pathlib.Path("/a b").as_uri(), platform.python_implementation())
import urllib.parse
print(urllib.parse.quote("a b"))
"""

# Compares what stays answered with what the real module says of every coroutine there is.
STAYED = """
import sys, types
from vmmd.loop import lean

lean.stand_in()
import platform
said_of_it = [platform.system(), platform.python_implementation()]
platform.machine
real = sys.modules["platform"]
print(said_of_it == [real.system(), real.python_implementation()], real is not platform)
stand_in = sys.modules["inspect"]
stand_in.getsource
real = sys.modules["inspect"]

@types.coroutine
def wait():
    yield

async def coroutine():
    states.append(said(mine))
    await wait()

def said(of):
    return [(i.iscoroutine(of), i.getcoroutinestate(of)) for i in (stand_in, real)]

states = []
mine = coroutine()
states.append(said(mine))
mine.send(None)
states.append(said(mine))
mine.close()
states.append(said(mine))
print([state for (mine, state), real in states if (mine, state) == real])
print(stand_in.iscoroutine(coroutine), stand_in.CORO_CLOSED == real.CORO_CLOSED)
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
        "-" * len(UNUSED),
    ]


def test_answers_are_for_the_time_of_the_import() -> None:
    assert run(ANSWERED) == [
        "ERROR",
        "True",
        "(one) a",
        "b a",
        "file:///a%20b CPython",
        "a%20b",
    ]


def test_what_stays_answered_is_what_the_real_one_says() -> None:
    states = ["CORO_CREATED", "CORO_RUNNING", "CORO_SUSPENDED", "CORO_CLOSED"]
    assert run(STAYED) == ["True True", str(states), "False True"]
