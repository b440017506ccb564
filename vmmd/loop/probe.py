"""Can this host's KVM boot a kernel? Some emulate privilege level 0.

KVM on shadow paging in software runs level 3 natively and emulates every
instruction of level 0, at some 600 ns each: a kernel prints its first lines and
never comes to an end. A short loop at level 0, timed, tells them apart.
"""

from __future__ import annotations

import os
import struct
import time

import trio

from vmmd.loop.selftest import served

NATIVE_NS = 50.0
"""Above this an instruction at level 0 is emulated."""

ROUNDS = 20_000
_DEADLINE_S = 5.0

# mov dx,3f8h; mov al,'<'; out dx,al; mov ecx,ROUNDS; dec ecx; jnz -4;
# mov al,'>'; out dx,al; jmp $
_CODE = b"".join(
    (
        bytes.fromhex("66baf803 b03c ee b9"),
        struct.pack("<I", ROUNDS),
        bytes.fromhex("ffc9 75fc b03e ee ebfe"),
    )
)


def level0_ns_per_instruction() -> float | None:
    """Nanoseconds of one instruction at level 0; None if it took too long.

    Under 30 ms. HostError if KVM cannot be used at all.
    """
    return trio.run(_measure)


async def _measure() -> float | None:
    took_s = None
    async with served(_CODE) as guest:
        guest.board.run()
        with trio.move_on_after(_DEADLINE_S):
            took_s = await _between(guest.console_out)
    return None if took_s is None else took_s * 1e9 / (2 * ROUNDS)


async def _between(fd: int) -> float:
    """Seconds from the guest's first byte to its last."""
    seen, began = b"", 0.0
    while not seen.endswith(b">"):
        await trio.lowlevel.wait_readable(fd)
        if not seen:
            began = time.monotonic()
        seen += os.read(fd, 16)
    return time.monotonic() - began
