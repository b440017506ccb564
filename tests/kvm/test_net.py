"""A flat guest that echoes frames over a real tap, and one that sends rubbish."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.driver import RingLayout
from tests.helpers.flat import DATA
from tests.helpers.network import own_network, set_up, wire
from tests.helpers.nic import needs_root
from tests.helpers.vcpus import DONE, MMIO, Machine, Setup, machine
from vmmd.bus import RegisterPage
from vmmd.loop.eventfd import EventFd
from vmmd.loop.net import Nic
from vmmd.loop.tap import Tap
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.device import RING_EVENT_IDX, VERSION_1, Activation, IrqLine
from vmmd.virtio.net import NetDevice, NetState
from vmmd.virtio.ring import Ring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = needs_root

QUEUE, BUFFER = 256, 2048
RX, TX = RingLayout.at(DATA, QUEUE), RingLayout.at(DATA + 0x4000, QUEUE)
FLAGS, BUFFERS = DATA + 0x8000, DATA + 0x10000
NOTIFY = MMIO + 0x50
HEADER = 12
OURS, GUESTS = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
FRAMES, IN_FLIGHT = 20_000, 128

# The end of both guests: tells the device of queue `rsi` whose avail index went
# from `ebp` to `r10w`, if it asked for that. Returns to r8.
_KICK = f"""
kick:
    mfence
    cmp byte ptr [{FLAGS}], 0
    jne event_idx
    test word ptr [rdi], 1
    jnz quiet
    jmp notify
event_idx:
    mov eax, r10d
    sub ax, [rdi + {RX.avail_event - RX.used}]
    dec ax
    mov ecx, r10d
    sub cx, bp
    cmp ax, cx
    jae quiet
notify:
    mov edx, {NOTIFY}
    mov [rdx], esi
quiet:
    jmp r8
"""

# Buffer i is descriptor i of both queues: what was received in it is sent from
# it, the addresses swapped, and when it was sent it is offered again.
# r11, r12: used indices of RX and TX seen; r9, r10: available indices of both.
# r13 frames are echoed; r14 counts.
ECHO = f"""
    xor r11d, r11d
    xor r12d, r12d
    xor r14d, r14d
    mov r9d, {QUEUE}
    xor r10d, r10d
again:
    mov ebp, r10d
received:
    cmp [{RX.used + 2}], r11w
    je send
    mov eax, r11d
    and eax, {QUEUE - 1}
    mov ebx, [rax * 8 + {RX.used + 4}]
    mov ecx, [rax * 8 + {RX.used + 8}]
    inc r11d
    mov edx, ebx
    shl edx, 4
    mov [rdx + {TX.desc + 8}], ecx
    mov edx, ebx
    shl edx, 11
    mov rax, [rdx + {BUFFERS + HEADER}]
    mov r15, [rdx + {BUFFERS + HEADER + 6}]
    mov rcx, [rdx + {BUFFERS + HEADER + 12}]
    mov [rdx + {BUFFERS + HEADER}], r15
    mov [rdx + {BUFFERS + HEADER + 6}], rax
    mov [rdx + {BUFFERS + HEADER + 12}], rcx
    mov eax, r10d
    and eax, {QUEUE - 1}
    mov [rax * 2 + {TX.avail + 4}], bx
    inc r10d
    jmp received
send:
    cmp ebp, r10d
    je sent
    mov [{TX.avail + 2}], r10w
    mov edi, {TX.used}
    mov esi, 1
    lea r8, [rip + sent]
    jmp kick
sent:
    mov ebp, r9d
    mov eax, r12d
    mov [{TX.used_event}], r12w
    mov [{RX.used_event}], r11w
each:
    cmp [{TX.used + 2}], r12w
    je offer
    mov eax, r12d
    and eax, {QUEUE - 1}
    mov ebx, [rax * 8 + {TX.used + 4}]
    inc r12d
    inc r14d
    mov eax, r9d
    and eax, {QUEUE - 1}
    mov [rax * 2 + {RX.avail + 4}], bx
    inc r9d
    jmp each
offer:
    cmp ebp, r9d
    je look
    mov [{RX.avail + 2}], r9w
    xchg r9d, r10d
    mov edi, {RX.used}
    xor esi, esi
    lea r8, [rip + offered]
    jmp kick
offered:
    xchg r9d, r10d
look:
    cmp r14d, r13d
    jae end
    pause
    jmp again
end:
    mov dx, {DONE}
    out dx, al
    spin: jmp spin
{_KICK}
"""

# Offers the r13 heads that lie in the TX ring, and waits until all were used.
SEND = f"""
    xor ebp, ebp
    mov r10d, r13d
    mov [{TX.avail + 2}], r10w
    mov edi, {TX.used}
    mov esi, 1
    lea r8, [rip + wait]
    jmp kick
wait:
    pause
    cmp [{TX.used + 2}], r10w
    jne wait
    mov dx, {DONE}
    out dx, al
    spin: jmp spin
{_KICK}
"""


@dataclass(slots=True)
class FakeTransport:
    """Notes that a ring was broken."""

    broken: int = 0

    def mark_broken(self) -> None:
        self.broken += 1


@dataclass(slots=True)
class Wire:
    """A tap in a namespace of its own, and a packet socket on the host's side."""

    tap: Tap
    host: socket.socket

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.wait_writable(self.host)
        self.host.send(frame)

    async def receive(self) -> bytes:
        """The next frame that came out of the tap."""
        while True:
            await trio.lowlevel.wait_readable(self.host)
            frame, address = self.host.recvfrom(1 << 16)
            if address[2] != socket.PACKET_OUTGOING and frame[6:12] == GUESTS:
                return frame


def plug(stack: ExitStack) -> Wire:
    """A tap that is up, and the host's side of it; both close with ``stack``."""
    with own_network():
        tap = Tap.open("tap0")
        stack.callback(tap.close)
        set_up("tap0")
        host = stack.enter_context(wire("tap0"))
    return Wire(tap, host)


@dataclass(slots=True)
class Served:
    """A guest's device while its pump runs."""

    memory: GuestMemory
    device: NetDevice
    wire: Wire
    transport: FakeTransport


def lay_out(memory: GuestMemory, *, event_idx: bool) -> None:
    """Buffer i is descriptor i of both queues; all are offered for receiving."""
    for i in range(QUEUE):
        at = BUFFERS + BUFFER * i
        memory.write(RX.desc + 16 * i, struct.pack("<QIHH", at, BUFFER, 2, 0))
        memory.write(TX.desc + 16 * i, struct.pack("<QIHH", at, 0, 0, 0))
    memory.write(RX.avail + 4, struct.pack(f"<{QUEUE}H", *range(QUEUE)))
    memory.write(TX.avail + 4, struct.pack(f"<{QUEUE}H", *range(QUEUE)))
    memory.store_u16(RX.avail + 2, QUEUE)
    memory.write(FLAGS, bytes([event_idx]))


@asynccontextmanager
async def serving(m: Machine, *, event_idx: bool = False) -> AsyncIterator[Served]:
    """The device and its pump over a real tap, the guest not yet running."""
    memory = GuestMemory([Region(0, memoryview(m.flat.memory))])
    lay_out(memory, event_idx=event_idx)
    rings = Ring(memory), Ring(memory)
    for ring, at in zip(rings, (RX, TX), strict=True):
        ring.configure(at.size, at.desc, at.avail, at.used, event_idx=event_idx)
    kick = EventFd()
    with ExitStack() as stack:
        stack.callback(memory.release)
        stack.callback(kick.close)
        wire = plug(stack)
        state = NetState(iface_id="eth0", host_dev_name="tap0", guest_mac=GUESTS)
        device = NetDevice.restore(state, wire.tap.fd)
        nic, transport = Nic(device, wire.tap, print), FakeTransport()
        features = VERSION_1 | (RING_EVENT_IDX if event_idx else 0)
        irq = IrqLine(RegisterPage())
        device.activate(Activation(memory, rings, features, irq))
        for queue in range(2):
            m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, queue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nic.pump, transport, kick)
            yield Served(memory, device, wire, transport)
            await m.pause()
            await nic.quiesce()
            nursery.cancel_scope.cancel()
        for queue in range(2):
            m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, queue, assign=False)
        device.reset()


def payload(number: int) -> bytes:
    """A frame's contents, of a length of its own, that tell it from others."""
    return struct.pack("<I", number) * (12 + number * 7 % 360)


async def flood(served: Served, window: trio.Semaphore) -> None:
    for number in range(FRAMES):
        await window.acquire()
        await served.wire.send(GUESTS + OURS + b"\x88\xb5" + payload(number))


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
async def test_every_frame_comes_back(event_idx: bool) -> None:
    setup = Setup([ECHO], registers={"r13": FRAMES})
    async with (
        machine(setup, timeout_s=60) as m,
        serving(m, event_idx=event_idx) as served,
        trio.open_nursery() as nursery,
    ):
        window = trio.Semaphore(IN_FLIGHT)
        nursery.start_soon(flood, served, window)
        m.threads.run()
        for number in range(FRAMES):
            frame = await served.wire.receive()
            window.release()
            assert frame == OURS + GUESTS + b"\x88\xb5" + payload(number)
        await m.handler.done.wait()
        seen = served.device.statistics()
        assert seen.rx_packets_count == seen.tx_packets_count == FRAMES
        assert served.transport.broken == 0
        assert (seen.rx_fails, seen.tx_malformed_frames, seen.tap_write_fails) == (
            0,
        ) * 3


GOOD = bytes(HEADER) + OURS + GUESTS + b"\x88\xb5" + bytes(50)
# Headers that the kernel refuses: an unknown kind of segments, a checksum to be
# filled in behind the end, segments of no length.
REFUSED = (
    struct.pack("<BBHHHHH", 0, 0x44, 0, 0, 0, 0, 0),
    struct.pack("<BBHHHHH", 1, 0, 0, 0, 0xFFF0, 0xFFF0, 0),
    struct.pack("<BBHHHHH", 1, 1, 54, 0, 34, 16, 0),
)


async def test_malformed_headers_are_dropped_and_counted() -> None:
    frames = [GOOD, *(header + GOOD[HEADER:] for header in REFUSED), GOOD[:20], GOOD]
    setup = Setup([SEND], registers={"r13": len(frames)})
    async with machine(setup) as m, serving(m) as served:
        for i, frame in enumerate(frames):
            served.memory.write(BUFFERS + BUFFER * i, frame)
            served.memory.store_u32(TX.desc + 16 * i + 8, len(frame))
        m.threads.run()
        await m.handler.done.wait()
        for _ in range(2):
            assert await served.wire.receive() == GOOD[HEADER:]
        seen = served.device.statistics()
        assert (seen.tx_packets_count, seen.tx_malformed_frames) == (2, 1)
        assert seen.tap_write_fails == len(REFUSED)
        assert served.transport.broken == 0


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("<QIHH", 1 << 40, 60, 0, 0),
        struct.pack("<QIHH", BUFFERS, 60, 1, QUEUE),
        struct.pack("<QIHH", BUFFERS, 60, 1, 1),
        struct.pack("<QIHH", BUFFERS, 60, 4, 0),
    ],
    ids=["outside", "beyond the table", "loop", "indirect"],
)
async def test_a_malformed_chain_breaks_the_device_alone(bad: bytes) -> None:
    setup = Setup([SEND], registers={"r13": 3})
    async with machine(setup) as m, serving(m) as served:
        for i in range(2):
            served.memory.write(BUFFERS + BUFFER * i, GOOD)
            served.memory.store_u32(TX.desc + 16 * i + 8, len(GOOD))
        served.memory.write(TX.desc + 16, bad)
        m.threads.run()
        assert await served.wire.receive() == GOOD[HEADER:]
        while not served.transport.broken:
            await trio.lowlevel.checkpoint()
        assert served.device.fault is not None
        assert served.memory.load_u16(TX.used + 2) == 1
        assert m.handler.ends == []
