"""A VM of flat guests with its threads and its pump, and who answers them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tests.helpers.flat import FlatVm, flat_vm
from vmmd.bus import RegisterPage, Rule, Space, Window
from vmmd.loop.vcpu import RING_SLOTS, VcpuThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from vmmd.cpu.exits import VmEnd

UART = 0x3F8
"""A port for what guests post, where a test gives it a window."""

DONE = 0x500
"""A port that guests write when they have come to an end."""

MMIO = 0xD000_0000
"""An address above the guests' memory, mapped in their page tables."""

SPIN = "spin: jmp spin"


class NoDevice:
    """Behind windows whose accesses the Recorder answers."""

    def read(self, offset: int, size: int) -> int:
        """Never asked."""
        raise AssertionError(f"read {offset} {size}")

    def write(self, offset: int, size: int, value: int) -> None:
        """Never asked."""
        raise AssertionError(f"write {offset} {size} {value}")


def window(space: Space, base: int, *rules: Rule, length: int = 0x100) -> Window:
    """A window with a page of its own."""
    return Window(space, base, length, NoDevice(), RegisterPage(), rules)


class Recorder:
    """Answers exits: writes are noted, reads give ``answer``, all ones else."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []
        self.answer: dict[int, bytes] = {}
        self.ends: list[VmEnd] = []
        self.ended_event = trio.Event()
        self.done = trio.Event()

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """Note it."""
        self.log.append(("posted", window.base + offset, size, value))

    def io_in(self, port: int, size: int, count: int) -> bytes:
        """Note it; the answer's bytes are repeated as often as asked."""
        self.log.append(("in", port, size, count))
        return self.answer.get(port, b"\xff" * size) * count

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """Note it; DONE is where the guest's work ends."""
        self.log.append(("out", port, size, data))
        if port == DONE:
            self.done.set()

    def mmio_read(self, address: int, size: int) -> bytes:
        """Note it."""
        self.log.append(("read", address, size))
        return self.answer.get(address, b"\xff" * size)[:size]

    def mmio_write(self, address: int, data: bytes) -> None:
        """Note it."""
        self.log.append(("write", address, data))

    def settled(self) -> None:
        """Nothing is put off here."""

    def holding(self) -> bool:
        """Every access is done when it is served."""
        return False

    async def released(self) -> None:
        """Nothing is held here."""
        await trio.lowlevel.checkpoint()

    def ended(self, end: VmEnd) -> None:
        """Note it."""
        self.ends.append(end)
        self.ended_event.set()


@dataclass
class Machine:
    """What a test holds: the VM, its threads, the handler."""

    flat: FlatVm
    threads: VcpuThreads
    handler: Recorder
    nursery: trio.Nursery

    async def pause(self) -> None:
        """Pause and wait for it."""
        self.threads.request_pause()
        await self.threads.wait_parked()

    @property
    def entered(self) -> int:
        """How often vCPU 0 has entered the guest."""
        return self.threads.statistics()[0].entered

    async def turn(self) -> None:
        """Give the pump a turn."""
        await trio.lowlevel.checkpoint()

    async def until_stalled(self, index: int, point: int) -> None:
        """Wait until vCPU ``index`` is held at ``point``."""
        while self.threads.stalled(index) != point:
            await trio.lowlevel.checkpoint()


@dataclass(frozen=True, slots=True)
class Setup:
    """How to make a machine: one source per vCPU, windows, start registers."""

    sources: Sequence[str]
    windows: Sequence[Window] = ()
    registers: dict[str, int] = field(default_factory=dict)
    slots: int = RING_SLOTS


@asynccontextmanager
async def machine(
    setup: Setup, handler: Recorder | None = None, *, timeout_s: float = 20
) -> AsyncIterator[Machine]:
    """Start it, parked, with its pump; at the end stop, join, free: in order.

    What the pump raises comes out as an ExceptionGroup, after the teardown.
    """
    flat = flat_vm(setup.sources, setup.registers)
    threads = VcpuThreads(flat.vcpus, setup.windows, slots=setup.slots)
    recorder = handler or Recorder()
    try:
        with trio.fail_after(timeout_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(threads.pump, recorder)
                threads.start()
                made = Machine(flat, threads, recorder, nursery)
                await threads.wait_parked()
                yield made
                nursery.cancel_scope.cancel()
    finally:
        threads.request_stop()
        with trio.CancelScope(shield=True):
            stuck = await threads.join()
        if not stuck:
            threads.close()
            flat.close()
        assert not stuck


async def run_to_end(setup: Setup, handler: Recorder | None = None) -> Recorder:
    """Run a guest until it ends (by ``ud2``: a triple fault); its recorder."""
    async with machine(setup, handler) as m:
        m.threads.run()
        await m.handler.ended_event.wait()
        return m.handler
