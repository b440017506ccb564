"""The state file: records to bytes with their checksum, and bytes to records.

Two vCPUs with a server's CPUID and MSRs, four disks and two interfaces. Beside it
pickle and zlib's crc32 of the same values, which check nothing.
"""

from __future__ import annotations

import pickle
import time
import zlib
from statistics import median
from typing import TYPE_CHECKING

from bench.harness import Bench
from vmmd.chips.i8042 import I8042State
from vmmd.chips.power import PowerState
from vmmd.chips.serial import SerialState
from vmmd.chips.vmclock import VmClockState
from vmmd.chips.vmgenid import VmGenIdState
from vmmd.cpu.clock import ClockData
from vmmd.cpu.cpuid import CpuidEntry
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Xcrs, Xsave
from vmmd.cpu.irqchip import IoapicState, PicState
from vmmd.cpu.lapic import reset_lapic
from vmmd.cpu.pit import PitState
from vmmd.cpu.registers import (
    DebugRegs,
    DescriptorTable,
    MpState,
    Regs,
    Segment,
    Sregs,
)
from vmmd.cpu.state import VcpuState
from vmmd.cpu.vm_state import VmState
from vmmd.state.manifest import MemoryManifest
from vmmd.state.snapshot import (
    Header,
    SnapshotFile,
    canonical,
    decode,
    encode,
    pack,
)
from vmmd.state.translate import upgraded
from vmmd.virtio.block import BlockState
from vmmd.virtio.mmio import MmioState
from vmmd.virtio.net import NetState
from vmmd.virtio.ring import RingState
from vmmd.vm_info import VmInfo

if TYPE_CHECKING:
    from collections.abc import Callable

VCPUS, DISKS, NETS, CPUID_ENTRIES, MSRS = 2, 4, 2, 60, 188
MEMORY = 128 << 20
ROUNDS = 30

_SEGMENT = Segment(base=0xFFFF_8880_0000_0000, limit=0xFFFF_FFFF, selector=16)
_TABLE = DescriptorTable(base=0xFFFF_FE00_0000_1000, limit=0xFFFF)


def _vcpu(index: int) -> VcpuState:
    return VcpuState(
        cpuid=tuple(
            CpuidEntry(
                function=0x8000_0000 + i, eax=0xDEAD_BEEF, ebx=i, edx=0x1783_FBFF
            )
            for i in range(CPUID_ENTRIES)
        ),
        mp_state=MpState(),
        regs=Regs(rip=0xFFFF_FFFF_8100_0000, rsp=0xFFFF_C900_0000_0000),
        sregs=Sregs(
            cs=_SEGMENT,
            ds=_SEGMENT,
            es=_SEGMENT,
            fs=_SEGMENT,
            gs=_SEGMENT,
            ss=_SEGMENT,
            tr=_SEGMENT,
            ldt=_SEGMENT,
            gdt=_TABLE,
            idt=_TABLE,
            cr0=0x8005_0033,
            cr2=0,
            cr3=0x1000_0000,
            cr4=0x370,
            cr8=0,
            efer=0xD01,
            apic_base=0xFEE0_0D00,
        ),
        xsave=Xsave(),
        xcrs=Xcrs(),
        debug_regs=DebugRegs(),
        lapic=reset_lapic(index),
        msrs=tuple((0xC000_0000 + i, 0xFFFF_FFFF_0000_0000 + i) for i in range(MSRS)),
        vcpu_events=VcpuEvents(),
        tsc_khz=2_445_404,
    )


def _device(name: str, device: object, rings: int) -> list[tuple[str, object]]:
    ring = RingState(
        ready=True,
        size=256,
        desc=0x10_0000,
        avail=0x10_1000,
        used=0x10_2000,
        event_idx=True,
        next_avail=0x1234,
        next_used=0x1234,
        signalled_used=0x1234,
        signalled_valid=True,
    )
    features = 1 << 32 | 1 << 29
    transport = MmioState(
        status=15, driver_features=features, activated=True, queues=(ring,) * rings
    )
    return [(name.partition("/")[2], device), (name, transport)]


def _records() -> list[tuple[str, object]]:
    records: list[tuple[str, object]] = [
        ("", VmInfo(vcpu_count=VCPUS, mem_size_mib=MEMORY >> 20)),
        (
            "",
            VmState(
                pitstate=PitState(),
                clock=ClockData(clock=10**12, flags=2),
                pic_master=PicState(),
                pic_slave=PicState(),
                ioapic=IoapicState(),
            ),
        ),
    ]
    records += ((str(i), _vcpu(i)) for i in range(VCPUS))
    chips = (SerialState(), I8042State(), PowerState())
    records += (
        ("", chip) for chip in (*chips, VmGenIdState(gsi=5), VmClockState(gsi=6))
    )
    for i in range(DISKS):
        disk = BlockState(drive_id=f"d{i}", path_on_host=f"/images/{i}.ext4")
        records += _device(f"block/d{i}", disk, 1)
    for i in range(NETS):
        net = NetState(iface_id=f"eth{i}", host_dev_name=f"tap{i}")
        records += _device(f"net/eth{i}", net, 2)
    return records


RECORDS = _records()
CLASSES = tuple({type(record) for _, record in RECORDS})
_BLOCKS = MEMORY >> 21
HEADER = Header(
    snapshot_id="0123456789abcdef0123456789abcdef",
    memory=canonical(
        MemoryManifest(
            size=MEMORY,
            regions=((0, MEMORY),),
            kind="Full",
            parent_id=None,
            pages=b"\xff" * 64 * _BLOCKS,
            checksums=b"\x01\x02\x03\x04" * _BLOCKS,
            unverified=bytes(_BLOCKS // 8),
        ).to_plain()
    ),
)


def _encode() -> bytes:
    entries = tuple(pack(record, record_id) for record_id, record in RECORDS)
    return encode(SnapshotFile(HEADER, entries))


DATA = _encode()
_PLAIN = [dict(entry.fields) for entry in decode(DATA).entries]
_PICKLED = pickle.dumps(_PLAIN, 5)


def _milliseconds(work: Callable[[], object]) -> float:
    """The median of many rounds, of processor time: all of it is ours."""
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        work()
        times.append(time.thread_time_ns() - start)
    return median(times) / 1e6


def _unpickle() -> object:
    return zlib.crc32(_PICKLED), pickle.loads(_PICKLED)  # our own bytes


BENCHES = (
    Bench(
        name="state encode + checksum",
        unit="ms",
        ours=lambda: _milliseconds(_encode),
        twin=lambda: _milliseconds(lambda: zlib.crc32(pickle.dumps(_PLAIN, 5))),
        limit=1.0,
    ),
    Bench(
        name="state decode + validation",
        unit="ms",
        ours=lambda: _milliseconds(lambda: upgraded(decode(DATA), CLASSES)),
        twin=lambda: _milliseconds(_unpickle),
        limit=2.0,
    ),
)
