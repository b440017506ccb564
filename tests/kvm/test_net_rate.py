"""A guest that sends and takes frames as fast as it is let: ten seconds at limits.

The rate is what a limiter is for, so here a test times.
"""

from __future__ import annotations

import os
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.driver import RingLayout
from tests.helpers.flat import DATA
from tests.helpers.network import own_network, set_up, wire
from tests.helpers.vcpus import MMIO, Machine, Setup, machine
from vmmd.bus import RegisterPage
from vmmd.config import RateLimiterConfig, TokenBucketConfig
from vmmd.limiter import cold
from vmmd.loop.eventfd import EventFd
from vmmd.loop.net import Nic
from vmmd.loop.tap import Tap
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.device import VERSION_1, Activation, IrqLine
from vmmd.virtio.net import NetDevice, NetState
from vmmd.virtio.ring import Ring

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")

QUEUE, DEPTH, BUFFER = 256, 32, 2048
RX, TX = RingLayout.at(DATA, QUEUE), RingLayout.at(DATA + 0x8000, QUEUE)
SENT, BUFFERS = DATA + 0x10000, DATA + 0x100000
NOTIFY = MMIO + 0x50
HEADER, FRAME = bytes(12), b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(1500)
SPENT_S, SECONDS, TOLERANCE = 1, 10, 0.05
MIB = 1 << 20

# The host has laid out both rings, with available rings that name all buffers over
# and over: the guest offers each receive buffer again as soon as it is used, and
# DEPTH frames to send as soon as those before are sent.
GUEST = f"""
    xor r10d, r10d
    xor r11d, r11d
again:
    mov ax, [{RX.used + 2}]
    add ax, {QUEUE}
    cmp ax, r11w
    je send
    mov r11w, ax
    mov [{RX.avail + 2}], ax
    mfence
    test word ptr [{RX.used}], 1
    jnz send
    mov edx, {NOTIFY}
    mov dword ptr [rdx], 0
send:
    pause
    cmp [{TX.used + 2}], r10w
    jne again
    add r10d, {DEPTH}
    mov [{TX.avail + 2}], r10w
    mfence
    test word ptr [{TX.used}], 1
    jnz again
    mov edx, {NOTIFY}
    mov dword ptr [rdx], 1
    jmp again
"""


def lay_out(memory: GuestMemory) -> None:
    memory.write(SENT, HEADER + FRAME)
    sent = struct.pack("<QIHH", SENT, len(HEADER + FRAME), 0, 0)
    memory.write(TX.desc, sent * QUEUE)
    for i in range(QUEUE):
        row = struct.pack("<QIHH", BUFFERS + BUFFER * i, BUFFER, 2, 0)
        memory.write(RX.desc + 16 * i, row)
    for ring in (RX, TX):
        memory.write(ring.avail + 4, struct.pack(f"<{QUEUE}H", *range(QUEUE)))


@pytest.fixture
def tap() -> Iterator[Tap]:
    """A tap that is up, in a network of its own; the host drops what is sent."""
    with own_network(), closing(Tap.open("rate0")) as made:
        set_up("rate0")
        yield made


class NoTransport:
    """Nobody is to break a ring here."""

    def mark_broken(self) -> None:
        raise AssertionError("a ring broke")


async def flood(packets: socket.socket) -> None:
    """Keep the tap's queue full: what it has no room for is dropped."""
    while True:
        try:
            for _ in range(256):
                packets.send(FRAME)
        except OSError:
            pass
        await trio.sleep(0.002)


async def measured(m: Machine, device: NetDevice) -> tuple[float, float]:
    """Bytes received and frames sent a second, once full buckets are spent."""
    m.threads.run()
    await trio.sleep(SPENT_S)
    start, before = trio.current_time(), device.statistics()
    assert before.rx_event_rate_limiter_count
    assert before.tx_rate_limiter_event_count
    await trio.sleep(SECONDS)
    took, after = trio.current_time() - start, device.statistics()
    assert after.tap_write_fails == after.rx_fails == after.tx_malformed_frames == 0
    received = after.rx_bytes_count - before.rx_bytes_count
    return received / took, (after.tx_packets_count - before.tx_packets_count) / took


async def serve(m: Machine, nic: Nic, packets: socket.socket) -> tuple[float, float]:
    """Wire the interface to the guest and measure."""
    memory = GuestMemory([Region(0, memoryview(m.flat.memory))])
    lay_out(memory)
    kick, rings = EventFd(), (Ring(memory), Ring(memory))
    for queue, (ring, at) in enumerate(zip(rings, (RX, TX), strict=True)):
        ring.configure(QUEUE, at.desc, at.avail, at.used, event_idx=False)
        m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, queue)
    irq = IrqLine(RegisterPage())
    nic.device.activate(Activation(memory, rings, VERSION_1, irq))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nic.pump, NoTransport(), kick)
        nursery.start_soon(flood, packets)
        seen = await measured(m, nic.device)
        await m.pause()
        nursery.cancel_scope.cancel()
    for queue in range(2):
        m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, queue, assign=False)
    nic.device.reset()
    kick.close()
    return seen


async def test_bytes_one_way_and_frames_the_other(tap: Tap) -> None:
    receive = RateLimiterConfig(TokenBucketConfig(10 * MIB, 4 * MIB, 1000), None)
    send = RateLimiterConfig(None, TokenBucketConfig(2000, None, 1000))
    record = NetState(
        iface_id="n",
        host_dev_name=tap.name,
        rx_limiter=cold(receive),
        tx_limiter=cold(send),
    )
    nic = Nic(NetDevice(record, tap.fd), tap, print)
    with wire(tap.name) as packets:
        async with machine(Setup([GUEST]), timeout_s=60) as m:
            received, sent = await serve(m, nic, packets)
    print(f"{received / MIB:.3f} MiB/s of 10 in, {sent:.1f} frames/s of 2000 out")
    assert received == pytest.approx(10 * MIB, rel=TOLERANCE)
    assert sent == pytest.approx(2000, rel=TOLERANCE)
