"""The loop's side of the vCPU threads: commands, the pump, the way out.

``vcpu.c`` beside this file has the threads and says when each needs us. One
eventfd tells of work (posted writes, mailboxes), one of states (parked, dead);
both are hints, the shared words are the truth. No call here waits for a guest
without giving way to the other tasks.

Life: ``start`` → ``run`` / ``request_pause`` + ``wait_parked`` … →
``request_stop`` → ``join`` → ``close``, with ``pump`` running beside all but
the last three. What a thread may touch (memory, pages, run pages, fds) stays
until ``join`` has returned.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import trio

from vmmd._native import ffi, lib
from vmmd.bus import Space
from vmmd.cpu.exits import RUN_HEAD_BYTES, ExitNote, ExitReason, VmEnd, decode_end
from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.eventfd import EventFd
from vmmd.loop.vcpu_rules import native_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmmd._native import CData
    from vmmd.bus import Rule, Window
    from vmmd.loop.exit_handler import ExitHandler
    from vmmd.loop.vcpufd import VcpuFd

RING_SLOTS = 1024
BUDGET = 256
"""Items (posted writes, answers) that the pump serves between two checkpoints:
well under a millisecond of Python."""

LINGER_S = 0.001
"""After a drain the ring is looked at again this much later before the pump
asks to be woken: a burst costs its producers one wake, not one per write. (epoll
counts milliseconds; a vCPU that asks, parks or dies cuts it short.)"""

_POSTED = struct.Struct("<QQIHH")


@dataclass(frozen=True, slots=True)
class VcpuCounters:
    """Counts of one vCPU since its start.

    KVM_RUN ``entered``; ``exits`` by reason; accesses by how they ended: ``shadow``, ``posted``,
    ``stored``, ``cleared`` (write-one-to-clear), ``asked`` (the loop); posted
    writes that met a ``full`` ring or had to wake the loop (``woken``); returns
    of KVM_RUN by a kick (``interrupted``) or EAGAIN (``again``); ``accesses``: ports
    read, ports written, memory read, memory written.
    """

    entered: int
    exits: dict[str, int]
    shadow: int
    posted: int
    stored: int
    cleared: int
    asked: int
    full: int
    woken: int
    interrupted: int
    again: int
    accesses: tuple[int, ...]


class VcpuThreads:
    """The vCPU threads of one VM and what they share with the loop.

    ``windows`` are served as their rules say; more may be added while the
    threads run. ``slots`` of the posted ring: a power of two.
    """

    def __init__(
        self,
        vcpus: Sequence[VcpuFd],
        windows: Sequence[Window] = (),
        *,
        slots: int = RING_SLOTS,
    ) -> None:
        if not 0 < len(vcpus) <= lib.VCPU_MAX:
            raise ValueError(f"1 to {lib.VCPU_MAX} vCPUs, got {len(vcpus)}")
        if slots < 1 or slots & (slots - 1):
            raise ValueError(f"{slots} slots: not a power of two")
        self._work = EventFd()
        try:
            self._state = EventFd()
        except HostError:
            self._work.close()
            raise
        self._drained = trio.lowlevel.ParkingLot()
        self._windows: list[Window] = []
        self._tables: dict[tuple[Rule, ...], CData] = {}
        self._ring = ffi.new("struct vcpu_posted[]", slots)
        self._all = ffi.new("struct vcpu_threads *")
        self._all.slot, self._all.mask = self._ring, slots - 1
        self._all.work_fd, self._all.state_fd = self._work.fd, self._state.fd
        self._runs = [ffi.from_buffer(v.run, require_writable=True) for v in vcpus]
        self._vcpus = [self._new_vcpu(v, run) for v, run in _pair(vcpus, self._runs)]
        self._out = ffi.new("struct vcpu_posted[]", BUDGET)
        self._out_bytes = memoryview(ffi.buffer(self._out))
        self._started = 0
        self._joined = False
        self._stopping = False
        self._reported: set[int] = set()
        self._held: CData | None = None
        for window in windows:
            self.add_window(window)

    def _new_vcpu(self, vcpu: VcpuFd, run: CData) -> CData:
        native = ffi.new("struct vcpu *")
        native.all, native.run = self._all, run
        native.fd, native.index = vcpu.fd, vcpu.index
        self._all.vcpu[self._all.count] = native
        self._all.count += 1
        return native

    # -- Windows

    def add_window(self, window: Window) -> None:
        """Let the threads serve ``window``. ValueError if the table is full."""
        native = ffi.new("struct vcpu_window *")
        native.base, native.length = window.base, window.length
        native.page, native.rules = window.page.native, self._table(window.rules)
        native.id, native.space = len(self._windows), int(window.space)
        if lib.vcpu_add_window(self._all, native):
            raise ValueError(f"more than {lib.VCPU_MAX_WINDOWS} windows")
        self._windows.append(window)

    def set_rules(self, window: Window) -> None:
        """Serve ``window`` by the rules it has now.

        Accesses that are under way may still be served by the old ones; those
        of a vCPU that is being answered are served by the new.
        """
        index = next(i for i, w in enumerate(self._windows) if w is window)
        lib.vcpu_set_rules(self._all, index, self._table(window.rules))

    def _table(self, rules: tuple[Rule, ...]) -> CData:
        # By value and for good: a thread may be reading the one replaced, and
        # a device goes to and fro between a few sets.
        if rules not in self._tables:
            self._tables[rules] = native_rules(rules)
        return self._tables[rules]

    # -- Commands

    def start(self) -> None:
        """Create the threads, parked. HostError if the host cannot.

        Blocks SIGRTMIN in the calling thread, and so in what it starts later.
        """
        _check("sigaction", lib.vcpu_install())
        for vcpu in self._vcpus:
            _check("pthread_create", lib.vcpu_start(vcpu))
            self._started += 1

    def run(self) -> None:
        """Let all guests go."""
        self._command(lib.VCPU_RUN)

    def request_pause(self) -> None:
        """Ask all threads to park; ``wait_parked`` tells when they have."""
        self._command(lib.VCPU_PAUSE)

    def request_stop(self) -> None:
        """Ask all threads to end, whatever they are at; there is no way back."""
        self._stopping = True
        self._command(lib.VCPU_STOP)

    def _command(self, command: int) -> None:
        if self._joined:
            return  # there is nobody to signal
        for vcpu in self._vcpus[: self._started]:
            lib.vcpu_command(vcpu, command)

    @property
    def parked(self) -> bool:
        """All have parked for the last pause, or ended; state may be read."""
        return all(lib.vcpu_is_parked(v) for v in self._vcpus[: self._started])

    @property
    def quiet(self) -> bool:
        """Parked, and every posted write has been handed over."""
        return self.parked and bool(lib.vcpu_posted_empty(self._all))

    async def wait_parked(self) -> None:
        """Wait until all are parked and all they posted was handed over.

        Needs the pump to run: a vCPU that waits for an answer gets it first.
        """
        while not self.parked:
            await self._state.wait()
        while not lib.vcpu_posted_empty(self._all):
            await self._drained.park()

    async def join(self, deadline_s: float = 5.0) -> tuple[int, ...]:
        """After ``request_stop``: wait for the threads to end, and join them.

        Returns the vCPUs that have not ended in time: then nothing was joined,
        nothing that they may touch can be freed, and the process has to leave
        by os._exit.
        """
        started = self._vcpus[: self._started]
        with trio.move_on_after(deadline_s):
            while not all(lib.vcpu_is_dead(v) for v in started):
                await self._state.wait()
        stuck = tuple(v.index for v in started if not lib.vcpu_is_dead(v))
        if not stuck and not self._joined:
            for vcpu in started:
                _check("pthread_join", lib.vcpu_join(vcpu))
            self._joined = True
        return stuck

    def close(self) -> None:
        """Release run pages and eventfds. RuntimeError unless joined."""
        if self._started and not self._joined:
            raise RuntimeError("close before join")
        for run in self._runs:
            ffi.release(run)
        self._work.close()
        self._state.close()

    # -- The pump

    async def pump(self, handler: ExitHandler) -> None:
        """Serve exits for ever: posted writes in order, then who waits for us.

        An exception of ``handler`` comes out here, and the nursery's teardown
        has to stop and join the threads.
        """
        while True:
            posted, served = self._serve(handler)
            if self._held is not None:
                await handler.released()
                held, self._held = self._held, None
                lib.vcpu_answer(held)
            elif served >= BUDGET:
                await trio.lowlevel.checkpoint()
            elif posted:
                with trio.move_on_after(LINGER_S):
                    await self._work.wait()
            elif lib.vcpu_arm(self._all):
                await self._work.wait()

    def _serve(self, handler: ExitHandler) -> tuple[int, int]:
        """Drain and answer until there is nothing, or the budget is spent."""
        posted = served = 0
        while served < BUDGET and self._held is None:
            taken = self._drain(handler)
            answered = self._answer_all(handler)
            posted += taken
            served += taken + answered
            if not taken and not answered:
                break
        if served:
            handler.settled()
        self._report_ends(handler)
        if lib.vcpu_posted_empty(self._all):
            self._drained.unpark_all()
        return posted, served

    def _drain(self, handler: ExitHandler) -> int:
        taken: int = lib.vcpu_take_posted(self._all, self._out, BUDGET)
        if taken:
            windows, posted = self._windows, handler.posted
            raw = self._out_bytes[: taken * _POSTED.size]
            for _, value, window, offset, size in _POSTED.iter_unpack(raw):
                posted(windows[window], offset, size, value)
        return taken

    def _answer_all(self, handler: ExitHandler) -> int:
        answered = 0
        index = lib.vcpu_next_asked(self._all, 0)
        while index < len(self._vcpus):
            vcpu = self._vcpus[index]
            _answer(vcpu.mail, handler)
            answered += 1
            if handler.holding():
                self._held = vcpu
                break
            lib.vcpu_answer(vcpu)
            index = lib.vcpu_next_asked(self._all, index + 1)
        return answered

    def _report_ends(self, handler: ExitHandler) -> None:
        for index, vcpu in enumerate(self._vcpus):
            # The plain look spares a call per turn; the call is the fence.
            if not vcpu.dead or self._stopping or index in self._reported:
                continue
            if lib.vcpu_is_dead(vcpu) and self._all.head >= vcpu.end_horizon:
                self._reported.add(index)
                handler.ended(self._end(index))

    def _end(self, index: int) -> VmEnd:
        run = bytes(ffi.buffer(self._runs[index])[:RUN_HEAD_BYTES])
        return decode_end(run, index, self._vcpus[index].run_errno)

    # -- What one reads off

    def last_exits(self, index: int) -> tuple[ExitNote, ...]:
        """The last exits of vCPU ``index``, oldest first; of a running one, a
        picture that may be torn."""
        vcpu = self._vcpus[index]
        count = vcpu.note_count
        first = max(0, count - lib.VCPU_NOTES)
        notes = (vcpu.note[i % lib.VCPU_NOTES] for i in range(first, count))
        return tuple(
            ExitNote(n.reason, n.address, n.size, n.count, bool(n.write), n.value)
            for n in notes
        )

    def statistics(self) -> tuple[VcpuCounters, ...]:
        """The counters of each vCPU."""
        return tuple(_counters(v.counters) for v in self._vcpus)

    # -- For tests of the order of things

    def stall(self, index: int, point: int) -> None:
        """Hold vCPU ``index`` where it next passes ``point`` (vcpu.h)."""
        lib.vcpu_stall(self._vcpus[index], point)

    def stalled(self, index: int) -> int:
        """The point that vCPU ``index`` is held at; 0: none."""
        point: int = self._vcpus[index].stalled
        return point


def _pair(vcpus: Sequence[VcpuFd], runs: Sequence[CData]) -> list[tuple[VcpuFd, CData]]:
    return list(zip(vcpus, runs, strict=True))


def _check(call: str, number: int) -> None:
    if number:
        raise HostError(f"{call} of a vCPU thread: {os.strerror(number)}")


def _answer(mail: CData, handler: ExitHandler) -> None:
    """Have ``handler`` serve what the mailbox asks, in the run page itself."""
    data = ffi.buffer(mail.data, mail.size * mail.count)
    match (mail.space, mail.write):
        case (Space.PIO, 0):
            data[:] = handler.io_in(mail.address, mail.size, mail.count)
        case (Space.PIO, _):
            handler.io_out(mail.address, mail.size, data[:])
        case (_, 0):
            data[:] = handler.mmio_read(mail.address, mail.size)
        case _:
            handler.mmio_write(mail.address, data[:])


def _counters(native: CData) -> VcpuCounters:
    exits = {
        reason.name: native.exits[reason]
        for reason in ExitReason
        if native.exits[reason]
    }
    return VcpuCounters(
        native.entered,
        exits,
        native.shadow,
        native.posted,
        native.stored,
        native.cleared,
        native.asked,
        native.full,
        native.woken,
        native.interrupted,
        native.again,
        tuple(native.accesses),
    )
