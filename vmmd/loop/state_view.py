"""What a living VM is doing, as JSON: how one debugs a hang.

``GET /vmmd/state``, and the death report of one that ended by KVM's fault:
registers, the last exits and counters of each vCPU, the rings and counters of
each device.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING

import trio

from vmmd.cpu.registers import Regs, Sregs
from vmmd.loop.vcpufd import VcpuPart

if TYPE_CHECKING:
    from vmmd.actions import JsonValue
    from vmmd.loop.board import Board
    from vmmd.machine import Attached

PARK_DEADLINE_S = 1.0
CODE_BYTES = 16
_NAMED_SREGS = ("cr0", "cr2", "cr3", "cr4", "efer", "apic_base")


async def view(board: Board, phase: str) -> dict[str, JsonValue]:
    """The state of ``board``; a running guest is stopped for microseconds.

    vCPUs that do not park within a second are shown without registers.
    """
    running = phase == "Running"
    if running:
        board.threads.request_pause()
    with trio.move_on_after(PARK_DEADLINE_S):
        await board.threads.wait_parked()
    try:
        shown = vcpus(board)
    finally:
        if running:
            board.threads.run()
    return {
        "phase": phase,
        "vcpus": [*shown],
        "devices": [_device(attached) for attached in board.machine.attached],
        "chips": {
            name: plain(value)
            for name, value in board.machine.statistics().items()
            if name in ("serial", "i8042", "power")
        },
    }


def vcpus(board: Board) -> list[dict[str, JsonValue]]:
    """Each vCPU, with registers if all are parked or dead."""
    return [_vcpu(board, index) for index in range(len(board.vcpus))]


def _vcpu(board: Board, index: int) -> dict[str, JsonValue]:
    shown: dict[str, JsonValue] = {"index": index}
    if board.threads.parked:
        shown |= _registers(board, index)
    shown["last_exits"] = [str(note) for note in board.threads.last_exits(index)]
    shown["counters"] = plain(board.threads.statistics()[index])
    return shown


def _registers(board: Board, index: int) -> dict[str, JsonValue]:
    fd = board.vcpus[index]
    regs = asdict(Regs.unpack(fd.get(VcpuPart.REGS)))
    sregs = Sregs.unpack(fd.get(VcpuPart.SREGS))
    shown: dict[str, JsonValue] = {name: hex(value) for name, value in regs.items()}
    shown |= {name: hex(getattr(sregs, name)) for name in _NAMED_SREGS}
    return {
        "registers": shown,
        "code_at_rip": _code(board, index, int(regs["rip"])),
    }


def _code(board: Board, index: int, rip: int) -> str | None:
    """The bytes at ``rip``, in hexadecimal, as far as they lie in memory."""
    gpa = board.vcpus[index].translate(rip)
    if gpa is None:
        return None
    for region in board.machine.memory.regions:
        left = region.gpa + len(region.buffer) - gpa
        if gpa - region.gpa >= 0 and left > 0:
            return board.machine.memory.read(gpa, min(CODE_BYTES, left)).hex(" ")
    return None


def _device(attached: Attached) -> JsonValue:
    transport = attached.transport
    return {
        "id": attached.name,
        "device_id": attached.device.DEVICE_ID,
        "address": hex(attached.slot.base),
        "gsi": attached.slot.gsi,
        "status": int(transport.status),
        "interrupt_status": int(transport.irq.status),
        "fault": transport.fault or None,
        "rings": [plain(ring.save()) for ring in transport.rings],
        "transport": plain(transport.statistics()),
        "counters": plain(attached.device.statistics()),
    }


def plain(value: object) -> JsonValue:
    """A record or counters as JSON; bytes in hexadecimal."""
    match value:
        case None | bool() | int() | str():
            return value
        case bytes():
            return value.hex()
        case tuple() | list():
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain(asdict(value))
    raise TypeError(f"no JSON for a {type(value).__name__}")
