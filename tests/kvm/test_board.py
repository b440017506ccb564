"""A board is built whole or not at all, and taken down whole."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.helpers.driver import Buffer, RingLayout
from tests.helpers.gate import Gate
from tests.helpers.mmio_guest import Guest
from vmmd.boot import layout
from vmmd.boot.image import Entry
from vmmd.cpu.boot_state import boot_vcpu
from vmmd.cpu.cpuid import unpack_cpuid
from vmmd.cpu.topology import Topology
from vmmd.errors import HostError
from vmmd.loop.board import Board, KvmState
from vmmd.loop.console import Console
from vmmd.loop.disk import BackingFile, Disk
from vmmd.loop.eventfd import EventFd
from vmmd.loop.files import map_guest_memory, unmap_guest_memory
from vmmd.loop.kvm import Kvm
from vmmd.machine import Machine
from vmmd.virtio.block import Backing, BlockDevice, BlockState
from vmmd.virtio.registers import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_MSR = 0x1234_5678
LARGE = (1 << 20) + 512  # a read that is a worker's from the start
HEADER_AT, DATA_AT = 0x20_0000, 0x30_0000


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    """/dev/kvm, opened."""
    opened = Kvm.open()
    yield opened
    opened.close()


def open_fds() -> set[str]:
    """What this process has open, by number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the listing's own descriptor
    return found


async def test_what_kvm_refuses_leaves_nothing_open(kvm: Kvm) -> None:
    memory = map_guest_memory(layout.memory_regions(16))
    machine = Machine(memory)
    console = Console(machine.serial)
    entry = Entry("linux64", 0x10_0000, layout.ZERO_PAGE)
    supported = unpack_cpuid(kvm.supported_cpuid())
    good = boot_vcpu(Topology(0, 2), supported, entry)
    bad = replace(good, msrs=(*good.msrs, (NO_MSR, 1)))
    before = open_fds()
    with pytest.raises(HostError, match=f"{NO_MSR:#x}"):
        Board(kvm, machine, KvmState([good, bad]), console, {})
    assert open_fds() == before
    console.close()
    unmap_guest_memory(memory)


class FullDisk(BackingFile):
    """A file that cannot be written out."""

    def sync(self) -> None:
        """As when the file system is full."""
        raise HostError(f"fsync {self.path}: No space left on device")


async def test_a_disk_that_fails_at_the_end_keeps_no_other_from_it(kvm: Kvm) -> None:
    memory = map_guest_memory(layout.memory_regions(16))
    disks: dict[str, Disk] = {}
    for name, kind in (("bad", FullDisk), ("good", BackingFile)):
        fd = os.memfd_create(name)
        backing = Backing(fd, 4096, b"id")
        record = BlockState(drive_id=name, path_on_host=name, cache_type="Writeback")
        device = BlockDevice.restore(record, backing)
        disks[name] = Disk(device, kind(name, fd, backing), print)
    machine = Machine(memory, [(name, disk.device) for name, disk in disks.items()])
    entry = Entry("linux64", 0x10_0000, layout.ZERO_PAGE)
    state = boot_vcpu(Topology(0, 1), unpack_cpuid(kvm.supported_cpuid()), entry)
    before = open_fds()
    board = Board(kvm, machine, KvmState([state]), Console(machine.serial), disks)
    lost = await board.close()
    assert [str(error) for error in lost] == ["fsync bad: No space left on device"]
    assert len(open_fds()) == len(before) - len(disks)


async def test_a_reset_is_not_answered_while_a_worker_is_in_guest_memory(
    kvm: Kvm,
) -> None:
    memory = map_guest_memory(layout.memory_regions(16))
    fd = os.memfd_create("disk")
    os.write(fd, b"late" * (LARGE // 4))
    backing = Backing(fd, LARGE, b"id")
    device = BlockDevice.restore(BlockState(drive_id="d", path_on_host="d"), backing)
    disk = Disk(device, BackingFile("d", fd, backing), print)
    machine = Machine(memory, [("d", device)])
    (attached,) = machine.attached
    entry = Entry("linux64", 0x10_0000, layout.ZERO_PAGE)
    state = boot_vcpu(Topology(0, 1), unpack_cpuid(kvm.supported_cpuid()), entry)
    board = Board(kvm, machine, KvmState([state]), Console(machine.serial), {"d": disk})
    kick, gate, went_on = EventFd(), Gate(device), trio.Event()
    (driver,) = Guest(attached.transport).probe([RingLayout.at(0x10_0000, 16)])
    memory.write(HEADER_AT, struct.pack("<IIQ", 0, 0, 0))
    data = Buffer(DATA_AT, LARGE + 1, writable=True)
    driver.add((Buffer(HEADER_AT, 16), data))

    async def released() -> None:
        await board.released()
        went_on.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.pump, attached.transport, kick)
        kick.signal()
        await gate.entered.wait()
        board.mmio_write(attached.slot.base + STATUS, bytes(4))
        assert board.holding()
        nursery.start_soon(released)
        await trio.testing.wait_all_tasks_blocked()
        assert not went_on.is_set()
        gate.open()
        with trio.fail_after(5):
            await went_on.wait()
        assert memory.read(DATA_AT, 4) == b"late"  # and nothing from here on
        assert not device.in_flight
        board.mmio_write(attached.slot.base + STATUS, bytes(4))
        assert not board.holding()
        nursery.cancel_scope.cancel()
    kick.close()
    assert await board.close() == ()


# In a process of its own: the C library keeps the stacks of ended threads, and
# a limit is the whole process's.
NO_THREADS = """
import resource, trio
from tests.helpers.options import options
from vmmd.errors import ConfigError
from vmmd.loop.selftest import resources
from vmmd.loop.supervisor import Supervisor

class Limited(Supervisor):
    async def adopt(self, board):  # which is built, and has no threads yet
        pages = int(open("/proc/self/statm").read().split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (64 << 10), hard))
        await super().adopt(board)

async def main():
    async with trio.open_nursery() as nursery:
        supervisor = Limited(options())
        supervisor.nursery, supervisor.resources = nursery, resources()
        try:
            await supervisor.start()
        except ConfigError as error:
            print(f"refused: {error}; {supervisor.phase.value}; {supervisor.board}")
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_a_host_without_threads_left_refuses_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == (
        "refused: pthread_create of a vCPU thread: Resource temporarily unavailable; "
        "Not started; None\n"
    ), done.stdout + done.stderr
