"""Flat guests: a few instructions in ring 3, long mode, no kernel.

Ring 3 runs at full speed also where KVM emulates level 0. IOPL 3 lets it reach
ports; software KVM forgets IOPL and asks the task segment's permission bitmap,
which is therefore there and all zeros. The first 4 GiB are mapped one to one, user-accessible, in 2 MiB pages.
There is no IDT and no stack: anything that faults is a triple fault.

Guests are written in GNU assembler (Intel syntax) and assembled when first
used, so the tests need binutils' ``as`` and ``objcopy``.
"""

from __future__ import annotations

import functools
import mmap
import struct
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmmd._native import ffi
from vmmd.loop.kvm import Kvm, Vm
from vmmd.loop.vcpufd import VcpuFd, VcpuPart

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY_BYTES = 4 << 20
CODE = 0x100000
"""Where the code of vCPU 0 is loaded; vCPU N's is at CODE + N * CODE_STRIDE."""

CODE_STRIDE = 0x10000
DATA = 0x200000
"""Guest memory that no helper touches: for flags, locks, buffers."""

_TABLES = 0x1000
_TASK = 0x8000
_TASK_BYTES = 0x68 + 0x2000  # the segment and its I/O permission bitmap
_REG_NAMES = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{i}" for i in range(8, 16)),
    *("rip", "rflags"),
)


@functools.cache
def assemble(source: str) -> bytes:
    """``source`` as flat machine code, to run wherever it is loaded."""
    text = f".intel_syntax noprefix\n.code64\n{source}\n"
    with tempfile.TemporaryDirectory() as folder:
        code, obj = Path(folder, "code"), Path(folder, "guest.o")
        subprocess.run(["as", "-o", str(obj)], input=text.encode(), check=True)
        subprocess.run(
            ["objcopy", "-O", "binary", "-j", ".text", str(obj), str(code)], check=True
        )
        return code.read_bytes()


def page_tables() -> bytes:
    """PML4, PDPT and four page directories, to lie at 0x1000: 4 GiB, U/S set."""
    flags = 7  # present, writable, user
    pml4 = struct.pack("<Q", (_TABLES + 0x1000) | flags).ljust(4096, b"\0")
    entries = [(_TABLES + 0x2000 + i * 0x1000) | flags for i in range(4)]
    pdpt = struct.pack("<4Q", *entries).ljust(4096, b"\0")
    pages = [(i << 21) | flags | 0x80 for i in range(2048)]
    return pml4 + pdpt + struct.pack("<2048Q", *pages)


def _segment(selector: int, kind: int, *, long: int) -> bytes:
    """``struct kvm_segment`` of a flat code or data segment of level 3."""
    fields = (kind, 1, 3, 1 - long, 1, long, 1, 0, 0, 0)
    return struct.pack("<QIH10B", 0, 0xFFFFFFFF, selector, *fields)


def sregs(before: bytes) -> bytes:
    """``struct kvm_sregs`` of ``before``, changed to long mode at level 3."""
    flags = (11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    task = struct.pack("<QIH10B", _TASK, _TASK_BYTES, 0, *flags)
    out = bytearray(before)
    out[: 7 * 24] = _segment(0x33, 11, long=1) + _segment(0x2B, 3, long=0) * 5 + task
    cr0, cr4, efer = 0x80000033, 0x620, 0x500  # PG NE ET MP PE; SSE, PAE; LMA LME
    struct.pack_into("<QQQQQQ", out, 224, cr0, 0, _TABLES, cr4, 0, efer)
    return bytes(out)


def regs(rip: int, values: dict[str, int]) -> bytes:
    """``struct kvm_regs`` with IOPL 3, rip and the registers named."""
    named = dict.fromkeys(_REG_NAMES, 0) | {"rip": rip, "rflags": 0x3002} | values
    return struct.pack("<18Q", *(named[name] for name in _REG_NAMES))


def read_regs(vcpu: VcpuFd) -> dict[str, int]:
    """The general registers by name; the vCPU must be parked."""
    values = struct.unpack("<18Q", vcpu.get(VcpuPart.REGS))
    return dict(zip(_REG_NAMES, values, strict=True))


@dataclass
class FlatVm:
    """A VM with one memory slot and its vCPUs at the start of their code."""

    vm: Vm
    vcpus: list[VcpuFd]
    memory: mmap.mmap
    cpuid: bytes

    def load(self, index: int, source: str) -> None:
        """Put the code of vCPU ``index`` into memory."""
        code = assemble(source)
        at = CODE + index * CODE_STRIDE
        self.memory[at : at + len(code)] = code

    def add_vcpu(self, index: int, registers: dict[str, int]) -> VcpuFd:
        """vCPU ``index``, runnable, at the start of its code."""
        vcpu = self.vm.create_vcpu(index)
        vcpu.set_cpuid2(self.cpuid)
        vcpu.set(VcpuPart.SREGS, sregs(vcpu.get(VcpuPart.SREGS)))
        vcpu.set(VcpuPart.REGS, regs(CODE + index * CODE_STRIDE, registers))
        vcpu.set(VcpuPart.MP_STATE, struct.pack("<I", 0))
        self.vcpus.append(vcpu)
        return vcpu

    def close(self) -> None:
        """Close in order: vCPU fds, VM fd, memory."""
        for vcpu in self.vcpus:
            vcpu.close()
        self.vm.close()
        self.memory.close()


@functools.cache
def host_cpuid() -> bytes:
    """What KVM supports, asked once: in leaves 1 and 11 stand the ids of the CPU that
    the question ran on, and two VMs of one test are to be alike.
    """
    with closing(Kvm.open()) as kvm:
        return kvm.supported_cpuid()


def flat_vm(sources: Sequence[str], registers: dict[str, int] | None = None) -> FlatVm:
    """A VM with one vCPU per source; all start with these ``registers``."""
    kvm = Kvm.open()
    vm = kvm.create_vm()
    vm.set_tss_addr(0xFFFBD000)
    memory = mmap.mmap(-1, MEMORY_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ffi.from_buffer(memory)
    vm.set_user_memory_region(0, 0, MEMORY_BYTES, int(ffi.cast("uintptr_t", view)))
    ffi.release(view)
    vm.create_irqchip()
    tables = page_tables()
    memory[_TABLES : _TABLES + len(tables)] = tables
    memory[_TASK + 0x66 : _TASK + 0x68] = struct.pack("<H", 0x68)
    flat = FlatVm(vm, [], memory, host_cpuid())
    kvm.close()
    for index, source in enumerate(sources):
        flat.load(index, source)
        flat.add_vcpu(index, registers or {})
    return flat
