"""A port write handled by a vCPU thread against KVM_RUN in a bare C loop.

The same flat guest for both sides: COUNT writes to one port, then one to
another. Wall time of the whole, which is almost all KVM's own.
"""

from __future__ import annotations

import ctypes
import functools
import time

import trio

from bench.harness import HERE, Bench, build_library
from tests.helpers.flat import flat_vm
from tests.helpers.vcpus import DONE, UART, Setup, machine, window
from vmmd._native import ffi
from vmmd.bus import Access, Rule, Space

COUNT = 20_000
GUEST = f"""
    mov ecx, {COUNT}
    mov edx, {UART}
next:
    out dx, al
    dec ecx
    jnz next
    mov edx, {DONE}
    out dx, al
stay:
    jmp stay
"""


def _threads(access: Access) -> float:
    """Microseconds of one write through vmmd's thread."""
    rule = Rule(0, 1, write=True, access=access)
    setup = Setup([GUEST], [window(Space.PIO, UART, rule, length=8)])
    return trio.run(_run, setup) * 1e6 / COUNT


async def _run(setup: Setup) -> float:
    async with machine(setup, timeout_s=60) as running:
        began = time.perf_counter()
        running.threads.run()
        await running.handler.done.wait()
        return time.perf_counter() - began


def _twin() -> float:
    """Microseconds of one write in the C loop."""
    flat = flat_vm([GUEST])
    run = ffi.from_buffer(flat.vcpus[0].run)
    address = ctypes.c_void_p(int(ffi.cast("uintptr_t", run)))
    began = time.perf_counter()
    status = _library().run_exits(flat.vcpus[0].fd, address, DONE)
    took = time.perf_counter() - began
    ffi.release(run)
    flat.close()
    if status:
        raise RuntimeError(f"the twin's guest ended otherwise: {status}")
    return took * 1e6 / COUNT


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(build_library(str(HERE / "exits.c"))))


BENCHES = (
    Bench("exit_stored", "us", functools.partial(_threads, Access.STORED), _twin, 1.1),
    Bench("exit_posted", "us", functools.partial(_threads, Access.POSTED), _twin, 1.1),
    # The loop answers each: two wakes more, and Python between them.
    Bench("exit_sync", "us", functools.partial(_threads, Access.SYNC), _twin),
)
