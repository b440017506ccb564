"""Kicks: many of them, and the one interleaving that loses a naive one."""

from __future__ import annotations

import os

import pytest
import trio

from tests.helpers.vcpus import DONE, MMIO, SPIN, UART, Recorder, Setup, machine, window
from vmmd._native import lib
from vmmd.bus import Access, Rule, Space, Window

KICKS = int(os.environ.get("VMMD_KICKS", "100000"))
"""Pauses of all modes together."""

FORCED = int(os.environ.get("VMMD_FORCED_KICKS", "500"))

POST = f"mov dx, {UART}\nagain: out dx, al\ninc al\njmp again"
SHADOW = f"mov ebx, {MMIO}\nagain: mov eax, [rbx]\njmp again"
ASK = f"""
    again:
    mov dx, {DONE + 8}
    in al, dx
    mov dx, {DONE + 16}
    out dx, al
    jmp again"""
MIX = f"""
    again:
    mov dx, {UART}
    out dx, al
    inc al
    mov dx, {DONE + 24}
    out dx, al
    mov dx, {UART}
    out dx, al
    inc al
    mov ah, al
    mov dx, {DONE + 8}
    in al, dx
    mov dx, {DONE + 16}
    out dx, al
    mov al, ah
    jmp again"""

MODES = {"spin": SPIN, "post": POST, "shadow": SHADOW, "ask": ASK, "mix": MIX}


class Echo(Recorder):
    """Gives numbers away, and wants them and the posted ones back in order."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0
        self.next_posted = 0

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """A running number."""
        assert (window.base, offset, size) == (UART, 0, 1)
        assert value == self.next_posted
        self.next_posted = (value + 1) & 0xFF

    def io_in(self, port: int, size: int, count: int) -> bytes:
        """The next number."""
        assert (port, size, count) == (DONE + 8, 1, 1)
        self.given = (self.given + 1) & 0xFF
        return bytes([self.given])

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """What was given, or what is posted next, or a post with a full ring."""
        assert size == 1
        if port == UART:
            assert data == bytes([self.next_posted])
            self.next_posted = (data[0] + 1) & 0xFF
            return
        want = self.given if port == DONE + 16 else self.next_posted
        assert data == bytes([want])


def windows() -> list[Window]:
    """Something to post to and something to read from the page."""
    shadow = Rule(0, 4, write=False, access=Access.SHADOW)
    posted = Rule(0, 1, write=True, access=Access.POSTED)
    return [
        window(Space.PIO, UART, posted, length=8),
        window(Space.MMIO, MMIO, shadow),
    ]


@pytest.mark.parametrize("mode", MODES)
async def test_many_kicks(mode: str) -> None:
    setup = Setup([MODES[mode]], windows())
    async with machine(setup, Echo(), timeout_s=600) as m:
        for turn in range(KICKS // len(MODES)):
            before = m.entered
            m.threads.run()
            while m.entered == before:
                os.sched_yield()  # a busy loop would keep its processor from it
            for _ in range(turn % 4):
                await trio.lowlevel.checkpoint()
            await m.pause()
        assert m.threads.quiet


async def test_many_kicks_of_two_vcpus() -> None:
    async with machine(Setup([ASK, SPIN], windows()), Echo()) as m:
        for _ in range(KICKS // 50):
            m.threads.run()
            await m.pause()


@pytest.mark.parametrize("point", [lib.VCPU_STALL_CLEARED, lib.VCPU_STALL_ENTERING])
async def test_a_kick_between_the_look_and_the_entry(point: int) -> None:
    """After immediate_exit is cleared, before and after the command is read."""
    async with machine(Setup([SPIN])) as m:
        for _ in range(FORCED):
            m.threads.stall(0, point)
            m.threads.run()
            await m.until_stalled(0, point)
            m.threads.request_pause()
            m.threads.stall(0, lib.VCPU_NO_STALL)
            await m.threads.wait_parked()


async def test_without_the_handler_that_kick_is_lost() -> None:
    """The naive order, played by hand: what the test above would find."""
    async with machine(Setup([SPIN])) as m:
        m.threads.stall(0, lib.VCPU_STALL_ENTERING)
        m.threads.run()
        await m.until_stalled(0, lib.VCPU_STALL_ENTERING)
        m.threads.request_pause()
        # The handler has run once the thread is back in its wait; then undo it.
        while not m.flat.vcpus[0].run[1]:
            await trio.lowlevel.checkpoint()
        m.flat.vcpus[0].run[1] = 0
        m.threads.stall(0, lib.VCPU_NO_STALL)
        with trio.move_on_after(0.1) as scope:
            await m.threads.wait_parked()
        assert scope.cancelled_caught
        assert not m.threads.parked
