"""A flat guest that writes, flushes and reads a disk; both sides check bytes."""

from __future__ import annotations

import os
import struct
from contextlib import closing
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import pytest
import trio

from tests.helpers.driver import RingLayout
from tests.helpers.flat import DATA
from tests.helpers.vcpus import DONE, MMIO, Machine, Setup, machine
from vmmd.bus import RegisterPage
from vmmd.loop.disk import BackingFile, Disk
from vmmd.loop.eventfd import EventFd
from vmmd.loop.files import HostFile
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.block import BlockDevice, BlockState, BlockStatistics
from vmmd.virtio.device import VERSION_1, Activation, IrqLine
from vmmd.virtio.ring import Ring

BLOCK, BLOCKS, QUEUE = 4096, 2048, 256
RING = RingLayout.at(DATA, QUEUE)
HEADERS, BAD, BUFFERS = DATA + 0x4000, DATA + 0x6000, DATA + 0x10000
FLUSH_HEADER = HEADERS + 0x1000
STAMP = 0x5A << 56
NOTIFY = MMIO + 0x50
OUT, IN, FLUSH = 1, 0, 4

# r12: requests posted, r13: of how many, r14: depth, r10: available index,
# r9: 3 * depth for reads, whose descriptors follow the writes', r11: wrong pages.
# Every batch of `depth` requests goes out with one kick, if one is asked for.
GUEST = f"""
    xor r10d, r10d
    xor r11d, r11d
    xor r9d, r9d
    lea r15, [rip + flush]
    jmp pass
flush:
    mov ecx, r10d
    and ecx, {QUEUE - 1}
    mov word ptr [rcx * 2 + {RING.avail + 4}], {QUEUE - 2}
    inc r10d
    lea r8, [rip + flushed]
    mov ebp, 1
    jmp publish
flushed:
    movzx eax, byte ptr [{FLUSH_HEADER + 16}]
    add r11d, eax
    lea r9d, [r14 + r14 * 2]
    lea r15, [rip + finished]
    jmp pass
finished:
    mov [{BAD}], r11d
    mov dx, {DONE}
    out dx, al
    spin: jmp spin

pass:
    xor r12d, r12d
batch:
    xor ecx, ecx
fill:
    lea eax, [r12 + r12 * 4 + 3]
    and eax, {BLOCKS - 1}
    mov edx, ecx
    shl edx, 6
    lea rsi, [rax * 8]
    test r9d, r9d
    setz byte ptr [rdx + {HEADERS}]
    mov [rdx + {HEADERS + 8}], rsi
    mov byte ptr [rdx + {HEADERS + 16}], 0xff
    mov edi, ecx
    shl edi, 12
    mov rbx, {STAMP}
    or rbx, rax
    test r9d, r9d
    jz stamp
    xor ebx, ebx
stamp:
    mov [rdi + {BUFFERS}], rbx
    mov [rdi + {BUFFERS + BLOCK - 8}], rbx
    mov edx, r10d
    and edx, {QUEUE - 1}
    lea eax, [rcx + rcx * 2]
    add eax, r9d
    mov [rdx * 2 + {RING.avail + 4}], ax
    inc r10d
    inc r12d
    inc ecx
    cmp ecx, r14d
    jne fill
    mov ebp, r14d
    lea r8, [rip + check]
    jmp publish
check:
    xor ecx, ecx
each:
    mov edx, ecx
    shl edx, 6
    movzx eax, byte ptr [rdx + {HEADERS + 16}]
    add r11d, eax
    mov rax, [rdx + {HEADERS + 8}]
    shr rax, 3
    mov rbx, {STAMP}
    or rbx, rax
    mov edi, ecx
    shl edi, 12
    cmp [rdi + {BUFFERS}], rbx
    jne wrong
    cmp [rdi + {BUFFERS + BLOCK - 8}], rbx
    je right
wrong:
    inc r11d
right:
    inc ecx
    cmp ecx, r14d
    jne each
    cmp r12d, r13d
    jb batch
    jmp r15

# Publishes `ebp` new entries, kicks if asked to, waits for all; goes on at r8.
publish:
    mov [{RING.avail + 2}], r10w
    mfence
    cmp byte ptr [{BAD + 8}], 0
    jne event_idx
    test word ptr [{RING.used}], 1
    jnz wait
    jmp kick
event_idx:
    mov eax, r10d
    sub ax, [{RING.avail_event}]
    dec ax
    cmp ax, bp
    jae wait
kick:
    mov edx, {NOTIFY}
    mov dword ptr [rdx], 0
wait:
    pause
    cmp [{RING.used + 2}], r10w
    jne wait
    jmp r8
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the guest counted as wrong, the file it left, and our counters."""

    bad: int
    file: bytes
    seen: BlockStatistics


def lay_out(memory: GuestMemory, depth: int, *, event_idx: bool) -> None:
    """Descriptors of `depth` writes, as many reads, and a flush at the end."""
    for slot in range(depth):
        header = HEADERS + 64 * slot
        data, status = BUFFERS + BLOCK * slot, header + 16
        for first, flags in ((3 * slot, 1), (3 * (depth + slot), 3)):
            rows = (
                (header, 16, 1, first + 1),
                (data, BLOCK, flags, first + 2),
                (status, 1, 2, 0),
            )
            raw = b"".join(struct.pack("<QIHH", *row) for row in rows)
            memory.write(RING.desc + 16 * first, raw)
    memory.write(FLUSH_HEADER, struct.pack("<IIQB", FLUSH, 0, 0, 0xFF))
    memory.write(
        RING.desc + 16 * (QUEUE - 2),
        struct.pack("<QIHH", FLUSH_HEADER, 16, 1, QUEUE - 1)
        + struct.pack("<QIHH", FLUSH_HEADER + 16, 1, 2, 0),
    )
    memory.write(BAD + 8, bytes([event_idx]))


class NoTransport:
    """Nobody is to break a ring here."""

    def mark_broken(self) -> None:
        raise AssertionError("the ring broke")


async def serve(m: Machine, disk: Disk, depth: int, *, event_idx: bool) -> int:
    """Run the guest to its end; what it counted as wrong."""
    memory = GuestMemory([Region(0, memoryview(m.flat.memory))])
    lay_out(memory, depth, event_idx=event_idx)
    ring, kick = Ring(memory), EventFd()
    ring.configure(QUEUE, RING.desc, RING.avail, RING.used, event_idx=event_idx)
    irq = IrqLine(RegisterPage())
    disk.device.activate(Activation(memory, (ring,), VERSION_1, irq))
    m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.pump, NoTransport(), kick)
        m.threads.run()
        await m.handler.done.wait()
        await m.pause()
        await disk.quiesce()
        nursery.cancel_scope.cancel()
    m.flat.vm.ioeventfd(NOTIFY, kick.fd, 4, 0, assign=False)
    kick.close()
    bad = memory.load_u32(BAD)
    disk.device.reset()
    return bad


async def run(depth: int, *, event_idx: bool, folder: str) -> Outcome:
    with TemporaryDirectory(dir=folder) as name:
        path = os.path.join(name, "disk.img")
        with open(path, "wb") as made:  # noqa: ASYNC230  (before the guest runs)
            made.truncate(BLOCK * BLOCKS)
        with closing(HostFile.open_disk(path, writable=True)) as opened:
            file = BackingFile.of(opened)
        record = BlockState(drive_id="d", path_on_host=path, cache_type="Writeback")
        device = BlockDevice(record, file.backing)
        registers = {"r13": BLOCKS, "r14": depth}
        async with machine(Setup([GUEST], registers=registers), timeout_s=60) as m:
            disk = Disk(device, file, print)
            bad = await serve(m, disk, depth, event_idx=event_idx)
        contents = os.pread(file.backing.fd, BLOCK * BLOCKS, 0)
        await disk.aclose()
        return Outcome(bad, contents, device.statistics())


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
@pytest.mark.parametrize("folder", ["/var/tmp", "/dev/shm"])
@pytest.mark.parametrize("depth", [1, 32])
async def test_every_byte(depth: int, folder: str, event_idx: bool) -> None:
    outcome = await run(depth, event_idx=event_idx, folder=folder)
    assert outcome.bad == 0
    assert outcome.seen.write_count == outcome.seen.read_count == BLOCKS
    assert outcome.seen.flush_count == 1
    for block in range(BLOCKS):
        page = outcome.file[BLOCK * block : BLOCK * (block + 1)]
        stamp = struct.pack("<Q", STAMP | block)
        assert page[:8] == page[-8:] == stamp
