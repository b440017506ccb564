"""Pausing anywhere: what is read of a parked vCPU is true, and goes on."""

from __future__ import annotations

import struct

import pytest
import trio

from tests.helpers.flat import CODE, DATA, FlatVm, flat_vm, read_regs
from tests.helpers.vcpus import (
    DONE,
    MMIO,
    SPIN,
    UART,
    Machine,
    Recorder,
    Setup,
    machine,
    window,
)
from vmmd.bus import Access, Rule, Space, Window
from vmmd.loop.vcpu import VcpuThreads
from vmmd.loop.vcpufd import VcpuFd, VcpuPart

COUNT = f"mov ebx, {DATA}\nagain: inc qword ptr [rbx]\njmp again"


def counter(m: Machine) -> int:
    """What COUNT has counted to."""
    value: int = struct.unpack_from("<Q", m.flat.memory, DATA)[0]
    return value


async def test_pause_in_a_busy_loop() -> None:
    async with machine(Setup([COUNT])) as m:
        assert counter(m) == 0
        m.threads.run()
        while not counter(m):
            await trio.lowlevel.checkpoint()
        await m.pause()
        assert m.threads.quiet
        stood = counter(m)
        assert CODE <= read_regs(m.flat.vcpus[0])["rip"] < CODE + 16
        await trio.sleep(0.02)
        assert counter(m) == stood
        m.threads.run()
        while counter(m) == stood:
            await trio.lowlevel.checkpoint()


async def test_pausing_twice_is_pausing() -> None:
    async with machine(Setup([SPIN])) as m:
        m.threads.run()
        await m.pause()
        await m.pause()
        m.threads.run()
        m.threads.request_pause()
        m.threads.run()
        m.threads.request_pause()
        await m.threads.wait_parked()
        assert m.threads.parked


async def test_an_unanswered_mailbox_holds_the_pause() -> None:
    """The answer comes first; then the exit is complete and the guest parks."""

    class Pausing(Recorder):
        def io_in(self, port: int, size: int, count: int) -> bytes:
            m.threads.request_pause()
            assert not m.threads.parked
            return super().io_in(port, size, count)

    handler = Pausing()
    handler.answer[DONE] = b"\x2a"
    source = f"mov dx, {DONE}\nin al, dx\nspin: jmp spin"
    async with machine(Setup([source]), handler) as m:
        m.threads.run()
        while not handler.log:
            await trio.lowlevel.checkpoint()
        await m.threads.wait_parked()
        state = read_regs(m.flat.vcpus[0])
        assert (state["rax"], state["rip"]) == (0x2A, CODE + 5)


@pytest.mark.parametrize("fragment", [0, 1])
async def test_pause_within_a_sixteen_byte_store(fragment: int) -> None:
    """Whichever half it comes in: both are served before the guest parks."""

    class Pausing(Recorder):
        def mmio_write(self, address: int, data: bytes) -> None:
            super().mmio_write(address, data)
            if address == MMIO + 8 * fragment:
                m.threads.request_pause()

    source = f"mov ebx, {MMIO}\nmovdqu [rbx], xmm0\nspin: jmp spin"
    async with machine(Setup([source]), Pausing()) as m:
        m.threads.run()
        while not m.handler.log:
            await trio.lowlevel.checkpoint()
        await m.threads.wait_parked()
        assert [entry[1] for entry in m.handler.log] == [MMIO, MMIO + 8]
        assert read_regs(m.flat.vcpus[0])["rip"] == CODE + 9


async def test_pause_at_every_byte_of_a_string_output() -> None:
    """rcx and the bytes seen agree at each of them; none is lost or doubled."""
    source = f"mov esi, {DATA}\nmov ecx, 64\nmov dx, {DONE + 8}\nrep outsb\nud2"

    class Pausing(Recorder):
        def io_out(self, port: int, size: int, data: bytes) -> None:
            super().io_out(port, size, data)
            m.threads.request_pause()

    text = bytes(range(64))
    pauses = 0
    async with machine(Setup([source]), Pausing()) as m:
        m.flat.memory[DATA : DATA + 64] = text
        while not m.handler.ends:
            before = len(m.handler.log)
            m.threads.run()
            while len(m.handler.log) == before and not m.handler.ends:
                await trio.lowlevel.checkpoint()
            if m.handler.ends:
                break
            await m.threads.wait_parked()
            seen = b"".join(bytes_of(entry) for entry in m.handler.log)
            assert seen == text[: len(seen)]
            assert read_regs(m.flat.vcpus[0])["rcx"] == 64 - len(seen)
            pauses += 1
    assert b"".join(bytes_of(entry) for entry in m.handler.log) == text
    assert pauses > 32


def bytes_of(entry: tuple[object, ...]) -> bytes:
    """The data of an ``out`` in the log."""
    data = entry[3]
    return data if isinstance(data, bytes) else b""


# A guest whose whole state shows in what it writes: SSE stores of a running
# number, string output, port input that is echoed, posted bytes.
MIXED = f"""
    mov ebx, {MMIO}
    mov ebp, {DATA}
again:
    inc r8
    movq xmm0, r8
    punpcklqdq xmm0, xmm0
    movdqu [rbx], xmm0
    mov dx, {UART}
    mov al, r8b
    out dx, al
    mov dx, {DONE + 8}
    in eax, dx
    mov dx, {DONE + 16}
    out dx, eax
    mov rsi, rbp
    mov ecx, 8
    mov dx, {DONE + 24}
    rep outsb
    mov rdi, rbp
    add rdi, 64
    mov ecx, 8
    mov dx, {DONE + 8}
    rep insb
    mov rax, [rbp + 64]
    mov [rbx + 32], rax
    jmp again"""


class Checking(Recorder):
    """Holds each round of MIXED against what it must be."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0
        self.calls = 0
        self.given = 0
        self.text = b""

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """The low byte of the round."""
        self.calls += 1
        assert (window.base, offset, size) == (UART, 0, 1)
        assert value == (self.rounds + 1) & 0xFF

    def mmio_write(self, address: int, data: bytes) -> None:
        """The round's number twice; at its end what was last read."""
        self.calls += 1
        if address == MMIO + 32:
            assert data == bytes([self.given & 0xFF]) * 8
            self.rounds += 1
        else:
            assert int.from_bytes(data, "little") == self.rounds + 1

    def io_in(self, port: int, size: int, count: int) -> bytes:
        """Another byte each round: one that was not given yet for the dword."""
        self.calls += 1
        assert port == DONE + 8
        if size == 4:
            self.given += 1
        return bytes([self.given & 0xFF]) * (size * count)

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """The echo, or the string."""
        self.calls += 1
        if port == DONE + 16:
            assert data == bytes([self.given & 0xFF]) * size
            self.text = b""
        else:
            self.text += data
            assert b"ABCDEFGH".startswith(self.text)


def move_state(source: VcpuFd, target: VcpuFd) -> None:
    """All that a thread's vCPU has goes to another vCPU."""
    for part in (
        VcpuPart.MP_STATE,
        VcpuPart.REGS,
        VcpuPart.SREGS,
        VcpuPart.XSAVE,
        VcpuPart.XCRS,
        VcpuPart.DEBUGREGS,
        VcpuPart.LAPIC,
        VcpuPart.VCPU_EVENTS,
    ):
        raw = source.get(part)
        if part is VcpuPart.LAPIC:
            raw = raw[:0x20] + target.get(part)[0x20:0x24] + raw[0x24:]
        target.set(part, raw)


async def one_leg(flat: FlatVm, vcpu: VcpuFd, handler: Checking, turns: int) -> None:
    """Let ``vcpu`` run for an exit and some turns, pause it, end its thread."""
    posted = Rule(0, 1, write=True, access=Access.POSTED)
    threads = VcpuThreads([vcpu], [window(Space.PIO, UART, posted, length=8)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.pump, handler)
        threads.start()
        threads.run()
        before = handler.calls
        while handler.calls == before:
            await trio.lowlevel.checkpoint()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        threads.request_pause()
        await threads.wait_parked()
        assert flat.memory[DATA : DATA + 8] == b"ABCDEFGH"
        nursery.cancel_scope.cancel()
    threads.request_stop()
    assert await threads.join() == ()
    threads.close()


async def test_handover_to_another_vcpu_loses_nothing() -> None:
    """The state of a parked vCPU is whole: another one goes on from it."""
    flat = flat_vm([MIXED, MIXED])
    flat.memory[DATA : DATA + 8] = b"ABCDEFGH"
    handler = Checking()
    here, there = flat.vcpus
    legs = 0
    with trio.fail_after(20):
        while handler.rounds < 100 or legs < 300:
            await one_leg(flat, here, handler, legs % 23)
            assert handler.ends == []
            move_state(here, there)
            here, there = there, here
            legs += 1
    flat.close()


async def test_a_processor_that_waits_for_its_sipi_parks() -> None:
    async with machine(Setup([SPIN, SPIN])) as m:
        m.flat.vcpus[1].set(VcpuPart.MP_STATE, struct.pack("<I", 1))
        m.threads.run()
        await m.pause()
        assert m.flat.vcpus[1].get(VcpuPart.MP_STATE) == struct.pack("<I", 1)
        m.threads.run()


async def test_many_vcpus_park() -> None:
    async with machine(Setup([SPIN] * 8)) as m:
        for _ in range(20):
            m.threads.run()
            await m.pause()


async def test_a_vcpu_that_died_counts_as_parked() -> None:
    async with machine(Setup(["ud2", SPIN])) as m:
        m.threads.run()
        await m.handler.ended_event.wait()
        await m.pause()
        assert [end.vcpu for end in m.handler.ends] == [0]
