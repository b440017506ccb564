"""VMGenID and VMClock in a Debian guest: found, bound, and heard when renewed."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from tests.helpers.guest import cmdline
from vmmd.config import BootSourceConfig, MachineConfig
from vmmd.loop.files import HostFile
from vmmd.loop.start import build
from vmmd.resources.boot import BootSource
from vmmd.resources.store import VmResources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lab.images import Guest, Images
    from vmmd.loop.board import Board

DEADLINE_S = 120
SCRIPT = """
echo BOUND $(ls /sys/bus/acpi/drivers/vmgenid | grep VMGENCTR)
echo CLOCK $(cat /sys/bus/acpi/devices/AMZNC10C:00/hid)
grep ACPI:Ged /proc/interrupts | sed 's/^/EVENT /'
dmesg | grep -E 'ACPI (Error|BIOS|Warning)' | sed 's/^/COMPLAINT /'
reseeded() { dmesg | grep -c 'crng reseeded due to virtual machine fork'; }
echo RESEEDED $(reseeded)
echo GUEST WAITS
until [ $(reseeded) -gt 0 ]; do usleep 10000; done
echo RESEEDED $(reseeded)
"""


def resources(guest: Guest) -> VmResources:
    arguments = cmdline("run", script=SCRIPT)
    kernel, initrd = str(guest.bzimage), str(guest.initrd)
    boot = BootSource(
        BootSourceConfig(kernel, initrd, arguments),
        HostFile.open(kernel),
        HostFile.open(initrd),
    )
    return VmResources(MachineConfig(mem_size_mib=256), boot)


@asynccontextmanager
async def served(made: VmResources) -> AsyncIterator[tuple[Board, int]]:
    """A running board and the end of its console; taken down at the end."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    console, written = os.pipe2(os.O_CLOEXEC)
    board = build(made, print, stdio=(nothing, written))
    try:
        async with trio.open_nursery() as nursery:
            await board.serve(nursery)
            board.run()
            yield board, console
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await board.close()
        for fd in (nothing, console, written):
            os.close(fd)
        for file in made.files():
            file.close()


async def read_until(console: int, text: str) -> str:
    """What the guest prints, up to this."""
    said = ""
    while text not in said:
        await trio.lowlevel.wait_readable(console)
        said += os.read(console, 65536).decode(errors="replace")
    return said


async def test_a_guest_reseeds_when_it_is_another_generation(
    guest_images: Images,
) -> None:
    with trio.fail_after(DEADLINE_S):
        async with served(resources(guest_images.full)) as (board, console):
            said = await read_until(console, "GUEST WAITS")
            gsis = board.machine.generation_gsis
            board.machine.tell_generation(os.urandom(16), restored=True)
            for gsi in gsis:
                for level in (1, 0):
                    board.vm.irq_line(gsi, level)
            after = await read_until(console, "VMMD-GUEST-RAN 0")
    assert "BOUND VMGENCTR:00" in said
    assert "CLOCK AMZNC10C" in said
    assert said.count("EVENT ") == len(gsis)
    assert "RESEEDED 0" in said
    assert "RESEEDED 1" in after
    assert "COMPLAINT" not in said
