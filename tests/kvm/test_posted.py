"""The posted ring: one order for all vCPUs, nothing lost, nobody starved."""

from __future__ import annotations

import os

import pytest
import trio

from tests.helpers.flat import DATA
from tests.helpers.vcpus import DONE, UART, Recorder, Setup, machine, window
from vmmd._native import lib
from vmmd.bus import Access, Rule, Space, Window

LOCKED_POSTS = int(os.environ.get("VMMD_POSTS", "20000"))

POSTED_DWORD = Rule(0, 4, write=True, access=Access.POSTED)

# Takes a spin lock, writes the next number, gives the lock back; every 16th
# number goes to a port that the loop answers.
LOCKED = f"""
    mov ebx, {DATA}
again:
    mov eax, 1
    xchg [rbx], eax
    test eax, eax
    jz taken
    pause
    jmp again
taken:
    mov eax, [rbx + 64]
    inc dword ptr [rbx + 64]
    mov dx, {UART}
    test al, 15
    jnz write
    mov dx, {DONE + 8}
write:
    out dx, eax
    mov dword ptr [rbx], 0
    mov ecx, 100
fair:
    pause
    dec ecx
    jnz fair
    jmp again"""


class InOrder(Recorder):
    """Wants one running number from all ports and vCPUs."""

    def __init__(self, want: int) -> None:
        super().__init__()
        self.count = 0
        self.want = want
        self.came = trio.Event()
        self.kinds = {"posted": 0, "asked": 0}

    def take(self, kind: str, value: int) -> None:
        """The next number."""
        assert value == self.count
        self.count += 1
        self.came.set()
        self.came = trio.Event()
        self.kinds[kind] += 1
        if self.count == self.want:
            self.done.set()

    async def until(self, count: int) -> None:
        """Wait until so many have come."""
        while self.count < count:
            await self.came.wait()

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """By the ring."""
        assert (window.base, offset, size) == (UART, 0, 4)
        self.take("posted", value)

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """By the mailbox: by a port of its own, or with the ring full."""
        assert size == 4
        assert port in (UART, DONE + 8)
        self.take("asked", int.from_bytes(data, "little"))


@pytest.mark.parametrize("slots", [1, 4, 1024])
async def test_vcpus_under_one_lock_keep_the_guests_order(slots: int) -> None:
    served = window(Space.PIO, UART, POSTED_DWORD, length=8)
    handler = InOrder(LOCKED_POSTS // 4 if slots < 1024 else LOCKED_POSTS)
    setup = Setup([LOCKED, LOCKED], [served], slots=slots)
    async with machine(setup, handler, timeout_s=120) as m:
        m.threads.run()
        await handler.done.wait()
        # A spin lock is not fair: go on until both have had it often.
        while min(c.exits.get("IO", 0) for c in m.threads.statistics()) < 200:
            await handler.until(handler.count + 100)
        await m.pause()
        counters = m.threads.statistics()
    full = sum(c.full for c in counters)
    assert handler.kinds["posted"] > 0
    assert (full > 0) or slots == 1024
    assert sum(c.posted for c in counters) == handler.kinds["posted"]


async def test_an_answer_waits_for_what_was_posted_before() -> None:
    """vCPU 0 holds a ticket it has not published; vCPU 1 asks after it."""
    first = f"mov dx, {UART}\nmov eax, 7\nout dx, eax\nspin: jmp spin"
    second = f"""
        mov ebx, {DATA}
    wait:
        cmp dword ptr [rbx], 0
        je wait
        mov dx, {DONE}
        out dx, eax
        spin: jmp spin"""
    served = window(Space.PIO, UART, POSTED_DWORD, length=8)
    async with machine(Setup([first, second], [served])) as m:
        m.threads.stall(0, lib.VCPU_STALL_PUBLISHING)
        m.threads.run()
        await m.until_stalled(0, lib.VCPU_STALL_PUBLISHING)
        m.flat.memory[DATA] = 1
        while not m.threads.statistics()[1].asked:
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.01)  # the time in which a wrong answer would come
        assert m.handler.log == []
        m.threads.stall(0, lib.VCPU_NO_STALL)
        await m.handler.done.wait()
    assert [entry[0] for entry in m.handler.log] == ["posted", "out"]


async def test_a_pause_hands_over_all_that_was_posted() -> None:
    source = f"mov dx, {UART}\nagain: out dx, eax\ninc eax\njmp again"
    handler = InOrder(-1)
    setup = Setup([source], [window(Space.PIO, UART, POSTED_DWORD, length=8)])
    async with machine(setup, handler) as m:
        for _ in range(500):
            m.threads.run()
            await m.pause()
            (counters,) = m.threads.statistics()
            assert handler.count == counters.exits.get("IO", 0)


async def test_single_writes_far_apart_each_wake_the_loop() -> None:
    """The loop sleeps in between: a wake that got lost would hang this."""
    source = f"""
        mov ebx, {DATA}
        mov dx, {UART}
    again:
        mov ecx, [rbx]
        cmp ecx, eax
        jbe again
        out dx, eax
        inc eax
        jmp again"""
    handler = InOrder(-1)
    setup = Setup([source], [window(Space.PIO, UART, POSTED_DWORD, length=8)])
    async with machine(setup, handler) as m:
        m.threads.run()
        for turn in range(1, 300):
            m.flat.memory[DATA : DATA + 4] = turn.to_bytes(4, "little")
            await handler.until(turn)
            await trio.sleep(0.0002 * (turn % 7))  # about the linger of the pump
        (counters,) = m.threads.statistics()
    assert counters.woken > 40


async def test_a_flood_leaves_the_loop_alive() -> None:
    """Other tasks get their turns while two guests post as fast as they can."""
    source = f"mov dx, {UART}\nagain: out dx, eax\njmp again"
    setup = Setup([source] * 2, [window(Space.PIO, UART, POSTED_DWORD, length=8)])
    async with machine(setup) as m:
        m.threads.run()
        while len(m.handler.log) < 5000:
            with trio.fail_after(1):
                await trio.lowlevel.checkpoint()
