"""A load, done ahead with a small machine of our own: what comes first is slow.

On first use modules are imported, schemas and C's types made, memory taken from
the kernel; and the interpreter makes code quicker that it has seen a few times.
All of that a process can have behind it before anybody asks for a load.
"""

from __future__ import annotations

import gc
import os
import resource
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import trio

from vmmd.boot.image import Entry
from vmmd.boot.layout import memory_regions
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.clock import ClockData
from vmmd.cpu.irqchip import IoapicState, PicState
from vmmd.cpu.pit import PitState
from vmmd.cpu.topology import Topology
from vmmd.cpu.vm_state import VmState
from vmmd.errors import HostError, VmmdError
from vmmd.http.connection import Connection, Request
from vmmd.http.routes import parse
from vmmd.loop import spare
from vmmd.loop.assemble import Parts, assemble
from vmmd.loop.board import KvmState
from vmmd.loop.files import map_snapshot_memory, unmap_guest_memory
from vmmd.loop.host_fit import check_host, host_facts
from vmmd.loop.snapshot_load import understood
from vmmd.machine import COLD
from vmmd.resources.store import VmResources
from vmmd.saved import Saved, records
from vmmd.snapshot_params import MemBackendConfig, MemBackendType, SnapshotLoadParams
from vmmd.state.manifest import MemoryManifest, count_blocks
from vmmd.state.snapshot import Header, SnapshotFile, encode, pack
from vmmd.vm_info import VmInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.cpu.cpuid import CpuidEntry
    from vmmd.loop.board import Board
    from vmmd.loop.snapshot_load import Found

READINGS = 12
"""CPython 3.11 makes code quicker after it has run 8 times."""

_BODY = b"""{"snapshot_path": "", "mem_backend": {"backend_type": "File",
"backend_path": ""}, "resume_vm": true}"""
_REQUEST = (
    b"PUT /snapshot/load HTTP/1.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_MEM_SIZE_MIB = 128
_PARAMS = SnapshotLoadParams(
    snapshot_path="",
    mem_backend=MemBackendConfig("", MemBackendType.FILE),
    track_dirty_pages=False,
    resume_vm=True,
    network_overrides=(),
    vsock_override=None,
    clock_realtime=False,
)


async def rehearse(wanted: Callable[[], bool]) -> None:
    """Take requests, read a state file, build a board, and leave a VM behind.

    Gives way between its steps, of which the longest are a board and its end, 10 ms
    each, and ends when it is not ``wanted`` any more. What this host cannot do, or
    has not enough of, is left to the load, which will say so.
    """
    data = _state_file()
    for _ in range(READINGS):
        if not wanted():
            return
        _ask()
        found = understood(data, _PARAMS, _drop)
        await trio.lowlevel.checkpoint()
    with suppress(VmmdError, OSError):
        host_facts().as_seen()
        await trio.lowlevel.checkpoint()
        if wanted() and _may_grow_files():
            await _build(found)  # once: KVM takes long to take it down
        if wanted():
            spare.keep()
    gc.collect()
    gc.freeze()


def _may_grow_files() -> bool:
    """Whether memory's file can be made: the signal that says no ends the process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit == resource.RLIM_INFINITY or limit >= _MEM_SIZE_MIB << 20


def _ask() -> None:
    """Understand and answer a request that has a body."""
    connection = Connection()
    connection.receive(_REQUEST)
    request = connection.next_request()
    if isinstance(request, Request):
        parse(request.method, request.target, request.body)
        connection.respond(204, None)


def _state_file() -> bytes:
    """Of a machine that has one vCPU, which has not run."""
    saved = Saved(
        VmInfo(vcpu_count=1, mem_size_mib=_MEM_SIZE_MIB),
        VmState(
            pitstate=PitState(),
            clock=ClockData(),
            pic_master=PicState(),
            pic_slave=PicState(),
            ioapic=IoapicState(),
        ),
        (boot_vcpu(Topology(0, 1), _supported(), Entry("linux64", 0, 0)),),
        COLD,
    )
    header = Header(snapshot_id="", memory=_manifest().to_plain())
    entries = (pack(record, name) for name, record in records(saved))
    return encode(SnapshotFile(header, tuple(entries)))


def _supported() -> tuple[CpuidEntry, ...]:
    try:
        return host_facts().cpuid
    except HostError:
        return ()


def _manifest() -> MemoryManifest:
    regions = memory_regions(_MEM_SIZE_MIB)
    size = sum(length for _, length in regions)
    blocks = count_blocks(size)
    return MemoryManifest(
        size=size,
        regions=regions,
        kind="Full",
        parent_id=None,
        pages=bytes(64 * blocks),
        checksums=bytes(4 * blocks),
        unverified=bytes((blocks + 7) // 8),
    )


async def _build(found: Found) -> None:
    """A board of the machine on an empty memory file; it does not run."""
    check_host(found.saved.vcpus, found.header.arch)
    with ExitStack() as held:
        fd = os.memfd_create("vmmd-rehearsal", os.MFD_CLOEXEC)
        held.callback(os.close, fd)
        os.truncate(fd, found.manifest.size)
        board = _board(found, fd)
        await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.CancelScope(shield=True):
            await board.close()


def _board(found: Found, fd: int) -> Board:
    saved = found.saved
    memory = map_snapshot_memory(found.manifest.regions, fd)
    with ExitStack() as undo:
        undo.callback(unmap_guest_memory, memory)
        parts = Parts(memory, KvmState(saved.vcpus, saved.vm), saved.machine)
        with closing(spare.take()) as kvm:
            board = assemble(kvm, VmResources(), parts, _drop, stdio=(fd, fd))
        undo.pop_all()
    return board


def _drop(_line: str) -> None:
    """Nobody is told of a rehearsal."""
