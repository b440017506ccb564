"""Stopping: from wherever a thread is, and when the pump breaks."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.flat import DATA, flat_vm
from tests.helpers.vcpus import (
    DONE,
    MMIO,
    SPIN,
    UART,
    Recorder,
    Setup,
    machine,
    run_to_end,
    window,
)
from vmmd._native import lib
from vmmd.bus import Access, Rule, Space, Window
from vmmd.loop.vcpu import VcpuThreads

if TYPE_CHECKING:
    from vmmd.cpu.exits import VmEnd

TIMES = 50

POSTED_BYTE = Rule(0, 1, write=True, access=Access.POSTED)
MODES = {
    "spinning": SPIN,
    "posting": f"mov dx, {UART}\nagain: out dx, al\njmp again",
    "asking": f"mov dx, {DONE}\nagain: in al, dx\njmp again",
    "storing 16 bytes": f"mov ebx, {MMIO}\nagain: movdqu [rbx], xmm0\njmp again",
    "string output": f"mov esi, {DATA}\nmov ecx, -1\nmov dx, {DONE}\nrep outsb",
    "string input": f"again: mov edi, {DATA}\nmov ecx, 4096\nmov dx, {DONE}\n"
    "rep insb\njmp again",
    "dead": "ud2",
}


def uart() -> Window:
    """A window whose bytes are posted."""
    return window(Space.PIO, UART, POSTED_BYTE, length=8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pumped", [True, False])
async def test_stop_from_any_mode(mode: str, pumped: bool) -> None:
    """With the pump at work, and with nobody there to answer."""
    flat = flat_vm([MODES[mode], SPIN])
    for turn in range(TIMES):
        threads = VcpuThreads(flat.vcpus, [uart()], slots=4)
        async with trio.open_nursery() as nursery:
            if pumped:
                nursery.start_soon(threads.pump, Recorder())
            threads.start()
            threads.run()
            for _ in range(turn):
                await trio.lowlevel.checkpoint()
            threads.request_stop()
            assert await threads.join() == ()
            nursery.cancel_scope.cancel()
        threads.close()
    flat.close()


async def test_a_late_answer_is_dropped() -> None:
    """STOP while the handler is at it: the guest does not go on with it."""

    class Stopping(Recorder):
        def io_in(self, port: int, size: int, count: int) -> bytes:
            m.threads.request_stop()
            return super().io_in(port, size, count)

    source = f"mov dx, {DONE}\nin al, dx\nout dx, al\nspin: jmp spin"
    async with machine(Setup([source]), Stopping()) as m:
        m.threads.run()
        assert await m.threads.join() == ()
    assert m.handler.log == [("in", DONE, 1, 1)]
    assert m.handler.ends == []


@pytest.mark.parametrize("started", [True, False])
async def test_stop_before_it_ever_ran(started: bool) -> None:
    flat = flat_vm([SPIN, SPIN])
    threads = VcpuThreads(flat.vcpus)
    if started:
        threads.start()
    threads.request_stop()
    assert await threads.join() == ()
    assert await threads.join() == ()
    threads.request_stop()
    threads.close()
    flat.close()


async def test_stop_a_held_thread_is_reported_and_nothing_is_freed() -> None:
    """A thread that does not end in time is named; later it does."""
    async with machine(Setup([SPIN, SPIN])) as m:
        m.threads.stall(1, lib.VCPU_STALL_ENTERING)
        m.threads.run()
        await m.until_stalled(1, lib.VCPU_STALL_ENTERING)
        m.threads.request_stop()
        assert await m.threads.join(0.05) == (1,)
        with pytest.raises(RuntimeError):
            m.threads.close()
        m.threads.stall(1, lib.VCPU_NO_STALL)


class BugError(Exception):
    """What a handler has as a bug."""


class Broken(Recorder):
    """Raises, or gives a wrong answer, once it has been asked as told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def check(self) -> None:
        """Raise if this is the place: the log's last entry."""
        if self.log[-1][0] == self.where:
            raise BugError(self.where)

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        super().posted(window, offset, size, value)
        self.check()

    def io_in(self, port: int, size: int, count: int) -> bytes:
        answer = super().io_in(port, size, count)
        self.check()
        return b"" if self.where == "short answer" else answer

    def io_out(self, port: int, size: int, data: bytes) -> None:
        super().io_out(port, size, data)
        self.check()

    def mmio_read(self, address: int, size: int) -> bytes:
        answer = super().mmio_read(address, size)
        self.check()
        return answer

    def mmio_write(self, address: int, data: bytes) -> None:
        super().mmio_write(address, data)
        self.check()

    def ended(self, end: VmEnd) -> None:
        super().ended(end)
        self.log.append(("ended",))
        self.check()


@pytest.mark.parametrize(
    "where",
    ["posted", "in", "out", "read", "write", "ended", "short answer"],
)
async def test_a_bug_in_the_pump_ends_in_order(where: str) -> None:
    """It comes out, and the threads are stopped, joined and freed (machine)."""
    source = f"""
        mov dx, {UART}
        out dx, al
        mov dx, {DONE}
        in al, dx
        out dx, al
        mov ebx, {MMIO}
        mov eax, [rbx]
        mov [rbx], eax
        ud2"""
    bug = ValueError if where == "short answer" else BugError
    with pytest.raises(ExceptionGroup) as caught:
        await run_to_end(Setup([source, SPIN], [uart()]), Broken(where))
    assert caught.group_contains(bug)


async def fail_beside_the_pump() -> None:
    """Another task of the nursery raises while guests are at work."""

    async def fail() -> None:
        raise BugError

    async with machine(Setup([MODES["asking"], MODES["posting"]], [uart()])) as m:
        m.threads.run()
        m.nursery.start_soon(fail)
        await trio.sleep_forever()


async def test_a_task_that_fails_beside_the_pump_ends_in_order() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await fail_beside_the_pump()
    assert caught.group_contains(BugError)


def blocked_signals() -> dict[str, int]:
    """The signal mask of each vCPU thread by its name."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("fc_vcpu"):
            status = (task / "status").read_text()
            found[name] = int(status.split("SigBlk:")[1].split()[0], 16)
    return found


async def test_threads_have_their_names_and_take_no_process_signals() -> None:
    """SIGTERM and friends are the main thread's, whatever the kernel picks."""
    async with machine(Setup([SPIN, SPIN])) as m:
        m.threads.run()
        await m.pause()  # a thread that is parked has set its mask
        found = blocked_signals()
    assert sorted(found) == ["fc_vcpu 0", "fc_vcpu 1"]
    for mask in found.values():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            assert mask >> (number - 1) & 1
        for number in (signal.SIGRTMIN, signal.SIGSEGV, signal.SIGBUS):
            assert not mask >> (number - 1) & 1


async def test_the_loops_thread_does_not_take_kicks() -> None:
    async with machine(Setup([SPIN])):
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.SIGRTMIN in blocked
