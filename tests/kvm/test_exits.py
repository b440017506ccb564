"""Ports, MMIO and every kind of window, on the machine's KVM."""

from __future__ import annotations

import trio
import trio.testing

from tests.helpers.flat import DATA
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
from vmmd.bus import Access, Rule, Space
from vmmd.cpu.exits import EndReason

POSTED_BYTE = Rule(0, 1, write=True, access=Access.POSTED)


async def test_a_held_access_keeps_its_vcpu_waiting() -> None:
    class Holding(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.open = trio.Event()
            self.asked = trio.Event()

        def holding(self) -> bool:
            return len(self.log) == 1

        async def released(self) -> None:
            self.asked.set()
            await self.open.wait()

    source = f"mov dx, 0x600\nout dx, al\nmov dx, {DONE}\nout dx, al\nspin: jmp spin"
    handler = Holding()
    async with machine(Setup([source]), handler) as m:
        m.threads.run()
        await handler.asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [entry[1] for entry in handler.log] == [0x600]
        handler.open.set()
        await handler.done.wait()
    assert [entry[1] for entry in handler.log] == [0x600, DONE]


async def test_ports_of_every_size() -> None:
    source = f"""
        mov eax, 0x44332211
        mov dx, {DONE + 8}
        out dx, al
        out dx, ax
        out dx, eax
        in eax, dx
        out dx, eax
        ud2"""
    handler = Recorder()
    handler.answer[DONE + 8] = b"\x01\x02\x03\x04"
    await run_to_end(Setup([source]), handler)
    port = DONE + 8
    assert handler.log == [
        ("out", port, 1, b"\x11"),
        ("out", port, 2, b"\x11\x22"),
        ("out", port, 4, b"\x11\x22\x33\x44"),
        ("in", port, 4, 1),
        ("out", port, 4, b"\x01\x02\x03\x04"),
    ]


async def test_mmio_of_every_size() -> None:
    source = f"""
        mov ebx, {MMIO}
        mov rax, 0x8877665544332211
        mov [rbx], al
        mov [rbx + 2], ax
        mov [rbx + 4], eax
        mov [rbx + 8], rax
        mov rax, [rbx + 16]
        mov [rbx + 24], rax
        ud2"""
    handler = Recorder()
    handler.answer[MMIO + 16] = b"abcdefgh"
    await run_to_end(Setup([source]), handler)
    assert handler.log == [
        ("write", MMIO, b"\x11"),
        ("write", MMIO + 2, b"\x11\x22"),
        ("write", MMIO + 4, b"\x11\x22\x33\x44"),
        ("write", MMIO + 8, b"\x11\x22\x33\x44\x55\x66\x77\x88"),
        ("read", MMIO + 16, 8),
        ("write", MMIO + 24, b"abcdefgh"),
    ]


async def test_sixteen_bytes_come_as_two_fragments() -> None:
    source = f"""
        mov ebx, {MMIO}
        movdqu xmm0, [rbx + 16]
        movdqu [rbx], xmm0
        ud2"""
    handler = Recorder()
    handler.answer |= {MMIO + 16: b"01234567", MMIO + 24: b"89abcdef"}
    await run_to_end(Setup([source]), handler)
    assert handler.log == [
        ("read", MMIO + 16, 8),
        ("read", MMIO + 24, 8),
        ("write", MMIO, b"01234567"),
        ("write", MMIO + 8, b"89abcdef"),
    ]


async def test_string_input_is_answered_in_one_go() -> None:
    source = f"""
        mov edi, {DATA}
        mov ecx, 3000
        mov dx, {DONE + 8}
        rep insb
        ud2"""
    handler = Recorder()
    handler.answer[DONE + 8] = b"\x5a"
    async with machine(Setup([source]), handler) as m:
        m.threads.run()
        await handler.ended_event.wait()
        assert m.flat.memory[DATA : DATA + 3001] == b"\x5a" * 3000 + b"\0"
    counts = [entry[3] for entry in handler.log]
    assert sum(int(str(count)) for count in counts) == 3000
    assert len(counts) < 100


async def test_shadow_reads_come_from_the_page() -> None:
    source = f"""
        mov ebx, {MMIO}
        mov eax, [rbx]
        mov [rbx + 0x200], eax
        mov eax, [rbx + 0x14]
        mov [rbx + 0x200], eax
        mov ax, [rbx]
        ud2"""
    rules = (
        Rule(0, 4, write=False, access=Access.SHADOW),
        Rule(0x10, 4, write=False, access=Access.SHADOW, length=8),
    )
    served = window(Space.MMIO, MMIO, *rules)
    served.page.store(0, 4, 0x74726976)
    served.page.store(0x14, 4, 0x01020304)
    async with machine(Setup([source], [served])) as m:
        m.threads.run()
        await m.handler.ended_event.wait()
        (counters,) = m.threads.statistics()
    assert m.handler.log == [
        ("write", MMIO + 0x200, b"virt"),
        ("write", MMIO + 0x200, b"\x04\x03\x02\x01"),
        ("read", MMIO, 2),
    ]
    assert (counters.shadow, counters.asked) == (2, 3)
    assert counters.exits == {"MMIO": 5, "SHUTDOWN": 1}


async def test_what_no_rule_fits_is_synchronous() -> None:
    """Wrong direction, unaligned, past the range, past the window."""
    source = f"""
        mov ebx, {MMIO}
        mov [rbx + 0x10], eax
        mov eax, [rbx + 0x12]
        mov eax, [rbx + 0x1c]
        mov eax, [rbx + 0x100]
        ud2"""
    rule = Rule(0x10, 4, write=False, access=Access.SHADOW, length=12)
    handler = await run_to_end(Setup([source], [window(Space.MMIO, MMIO, rule)]))
    assert [entry[:2] for entry in handler.log] == [
        ("write", MMIO + 0x10),
        ("read", MMIO + 0x12),
        ("read", MMIO + 0x1C),
        ("read", MMIO + 0x100),
    ]


async def test_stored_write_and_its_mask() -> None:
    source = f"""
        mov dx, {UART + 7}
        mov al, 0x5a
        out dx, al
        mov dx, {UART + 1}
        mov al, 0xff
        out dx, al
        ud2"""
    rules = (
        Rule(7, 1, write=True, access=Access.STORED),
        Rule(1, 1, write=True, access=Access.STORED, mask=0x0F),
    )
    served = window(Space.PIO, UART, *rules, length=8)
    handler = await run_to_end(Setup([source], [served]))
    assert handler.log == []
    assert served.page.load(7, 1) == 0x5A
    assert served.page.load(1, 1) == 0x0F


async def test_write_one_to_clear() -> None:
    source = f"""
        mov ebx, {MMIO}
        mov eax, 5
        mov [rbx + 0x64], eax
        ud2"""
    rule = Rule(0x64, 4, write=True, access=Access.W1C, target=0x60)
    served = window(Space.MMIO, MMIO, rule)
    served.page.store(0x60, 4, 7)
    handler = await run_to_end(Setup([source], [served]))
    assert handler.log == []
    assert served.page.load(0x60, 4) == 2


async def test_posted_writes_come_in_order_and_before_what_follows() -> None:
    source = f"""
        mov dx, {UART}
        mov ecx, 5000
        mov al, 0
    again:
        out dx, al
        inc al
        dec ecx
        jnz again
        mov dx, {DONE}
        out dx, al
        ud2"""
    served = window(Space.PIO, UART, POSTED_BYTE, length=8)
    async with machine(Setup([source], [served])) as m:
        m.threads.run()
        await m.handler.ended_event.wait()
        (counters,) = m.threads.statistics()
    expected: list[tuple[object, ...]] = [
        ("posted", UART, 1, i & 0xFF) for i in range(5000)
    ]
    assert m.handler.log == [*expected, ("out", DONE, 1, bytes([5000 & 0xFF]))]
    assert counters.posted + counters.full == 5000
    assert counters.woken < 500


async def test_stored_and_posted_is_read_back_at_once() -> None:
    source = f"""
        mov dx, {UART + 1}
        mov al, 0xf5
        out dx, al
        in al, dx
        mov dx, {DONE}
        out dx, al
        ud2"""
    rules = (
        Rule(1, 1, write=True, access=Access.STORED_POSTED, mask=0x0F),
        Rule(1, 1, write=False, access=Access.SHADOW),
    )
    handler = await run_to_end(
        Setup([source], [window(Space.PIO, UART, *rules, length=8)])
    )
    assert handler.log == [
        ("posted", UART + 1, 1, 0xF5),
        ("out", DONE, 1, b"\x05"),
    ]


async def test_rules_change_while_the_guest_is_being_answered() -> None:
    source = f"""
        mov dx, {UART}
        mov al, 1
        out dx, al
        mov dx, {DONE}
        out dx, al
        mov dx, {UART}
        out dx, al
        ud2"""
    served = window(Space.PIO, UART, POSTED_BYTE, length=8)

    class Latch(Recorder):
        def io_out(self, port: int, size: int, data: bytes) -> None:
            super().io_out(port, size, data)
            served.rules = ()
            m.threads.set_rules(served)

    async with machine(Setup([source], [served]), Latch()) as m:
        m.threads.run()
        await m.handler.ended_event.wait()
    assert [entry[0] for entry in m.handler.log] == ["posted", "out", "out"]


async def test_a_window_added_while_the_guest_runs() -> None:
    async with machine(Setup([f"again: out {0x80}, al\njmp again"])) as m:
        m.threads.run()
        added = window(Space.PIO, 0x80, POSTED_BYTE, length=1)
        m.threads.add_window(added)
        while not m.threads.statistics()[0].posted:
            await m.turn()
        await m.pause()
    assert m.handler.log[-1] == ("posted", 0x80, 1, 0)


async def test_the_end_waits_for_what_another_vcpu_posted_before() -> None:
    """vCPU 0 holds a ticket it has not published; vCPU 1 dies after it."""
    first = f"mov dx, {UART}\nmov al, 33\nout dx, al\nspin: jmp spin"
    second = f"mov ebx, {DATA}\nwait: cmp byte ptr [rbx], 0\nje wait\nud2"
    served = window(Space.PIO, UART, POSTED_BYTE, length=8)
    async with machine(Setup([first, second], [served])) as m:
        m.threads.stall(0, lib.VCPU_STALL_PUBLISHING)
        m.threads.run()
        await m.until_stalled(0, lib.VCPU_STALL_PUBLISHING)
        m.flat.memory[DATA] = 1
        while "SHUTDOWN" not in m.threads.statistics()[1].exits:
            await m.turn()
        await trio.sleep(0.01)  # the time in which a wrong report would come
        assert m.handler.ends == []
        m.threads.stall(0, lib.VCPU_NO_STALL)
        await m.handler.ended_event.wait()
    assert m.handler.log == [("posted", UART, 1, 33)]


async def test_the_end_comes_after_what_was_posted() -> None:
    source = f"mov dx, {UART}\nmov al, 33\nout dx, al\nud2"
    served = window(Space.PIO, UART, POSTED_BYTE, length=8)
    handler = await run_to_end(Setup([source], [served]))
    assert handler.log == [("posted", UART, 1, 33)]
    (end,) = handler.ends
    assert end.reason is EndReason.TRIPLE_FAULT
    assert end.exit_code == 1


async def test_last_exits_tell_what_led_there() -> None:
    source = f"mov ebx, {MMIO}\nmov eax, 7\nout 0x80, al\nmov [rbx], eax\nud2"
    async with machine(Setup([source])) as m:
        m.threads.run()
        await m.handler.ended_event.wait()
        notes = [str(note) for note in m.threads.last_exits(0)]
    assert notes == [
        "IO 0x80 8 bit write 0x7",
        f"MMIO {MMIO:#x} 32 bit write 0x7",
        "SHUTDOWN",
    ]


async def test_a_spinning_guest_costs_no_exit() -> None:
    async with machine(Setup([SPIN])) as m:
        m.threads.run()
        await m.pause()
        (counters,) = m.threads.statistics()
    assert counters.exits == {}
