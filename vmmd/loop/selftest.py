"""A small guest that proves this host's KVM and all of vmmd's way through it.

It is booted as any kernel is: an ELF file, entered in 64-bit mode. It prints a
byte, waits in a loop for one from the console, is paused and let go in that
loop, echoes the byte and resets the machine by the keyboard controller: posted
and shadow exits, synchronous exits, pause, resume, input and the end. It needs
no kernel image, and runs also where KVM emulates privilege level 0.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import trio

from vmmd.config import BootSourceConfig, MachineConfig
from vmmd.cpu.exits import EndReason
from vmmd.errors import HostError
from vmmd.loop.files import HostFile
from vmmd.loop.start import build
from vmmd.resources.boot import BootSource
from vmmd.resources.store import VmResources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vmmd.loop.board import Board

LOAD = 1 << 20
MEM_SIZE_MIB = 16
DEADLINE_S = 10.0
_GREETING, _QUESTION = b"V", b"?"

# mov dx,3f8h; mov al,'V'; out dx,al; wait: mov dx,3fdh; in al,dx; test al,1;
# jz wait; mov dx,3f8h; in al,dx; out dx,al; mov al,0feh; out 64h,al; jmp $
CODE = bytes.fromhex(
    "66baf803 b056 ee 66bafd03 ec a801 74f7 66baf803 ec ee b0fe e664 ebfe"
)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How long each part took, in milliseconds."""

    start_ms: float
    first_byte_ms: float
    pause_ms: float
    end_ms: float


def kernel_image(code: bytes = CODE) -> bytes:
    """``code`` as an ELF file with one segment at LOAD."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, 62, 1, LOAD, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 120, LOAD, LOAD, len(code), 4096, 4096)
    return header + segment + code


async def run() -> SelfTest:
    """Run it. HostError says what did not work."""
    with trio.move_on_after(DEADLINE_S):
        return await _run()
    raise HostError(f"the self-test's guest did not come to its end in {DEADLINE_S} s")


async def _run() -> SelfTest:
    began = time.monotonic()
    async with served(CODE) as guest:
        built = time.monotonic()
        times = await _exercise(guest)
    marks = (began, built, *times)
    return SelfTest(*((b - a) * 1e3 for a, b in pairwise(marks)))


@dataclass(frozen=True, slots=True)
class Served:
    """A board whose pumps run, and the other ends of its console's pipes."""

    board: Board
    console_in: int
    console_out: int


@asynccontextmanager
async def served(code: bytes) -> AsyncIterator[Served]:
    """A guest of ``code``, built and parked; taken down at the end."""
    console_in, console_out = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    board = build(resources(code), print, stdio=(console_in[0], console_out[1]))
    try:
        async with trio.open_nursery() as nursery:
            await board.serve(nursery)
            yield Served(board, console_in[1], console_out[0])
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await board.close()
        for fd in (*console_in, *console_out):
            os.close(fd)


async def _exercise(guest: Served) -> tuple[float, ...]:
    board = guest.board
    board.run()
    await _expect(guest.console_out, _GREETING)
    greeted = time.monotonic()
    await board.pause()
    paused = time.monotonic()
    board.run()
    os.write(guest.console_in, _QUESTION)
    await _expect(guest.console_out, _QUESTION)
    await board.over.wait()
    if board.end is None or board.end.reason is not EndReason.I8042_RESET:
        raise HostError(f"the self-test's guest ended otherwise: {board.end}")
    return greeted, paused, time.monotonic()


async def _expect(fd: int, wanted: bytes) -> None:
    await trio.lowlevel.wait_readable(fd)
    found = os.read(fd, 64)
    if found != wanted:
        raise HostError(f"the self-test's guest printed {found!r}, not {wanted!r}")


def resources(code: bytes = CODE) -> VmResources:
    """A machine of one vCPU that boots ``code``."""
    fd = os.memfd_create("vmmd-selftest", os.MFD_CLOEXEC)
    os.write(fd, kernel_image(code))
    kernel = HostFile("(self-test)", fd)
    boot = BootSource(BootSourceConfig(kernel.path, boot_args=""), kernel, None)
    return VmResources(machine=MachineConfig(mem_size_mib=MEM_SIZE_MIB), boot=boot)
