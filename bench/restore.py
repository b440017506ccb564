"""From a snapshot to a guest that goes on, against a bare C program.

`restore_core`: state as bytes, through vmmd's descriptors, to the first exit; the
twin makes the same calls. `load_*`: `PUT /snapshot/load` with `resume_vm` to its
answer, by a process that was at rest; the twin is the same C program. `load_fresh`:
by a process whose socket has just appeared, against one that was at rest.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.harness import Bench, build_twin
from bench.process import CONNECT_DEADLINE_S, FLOOD, connect, request
from tests.helpers.daemon import Daemon, daemon
from vmmd._native import ffi
from vmmd.boot import layout
from vmmd.cpu.cpuid import pack_cpuid
from vmmd.cpu.irqchip import pack_irqchip
from vmmd.cpu.msrs import pack_chunks
from vmmd.loop.files import map_snapshot_memory, unmap_guest_memory
from vmmd.loop.ioctl import ioctl
from vmmd.loop.kvm import IrqChip, Kvm, Vm
from vmmd.loop.origin import open_memory_file
from vmmd.loop.selftest import kernel_image
from vmmd.loop.vcpufd import VcpuFd, VcpuPart
from vmmd.saved import RECORDS, saved_of
from vmmd.state.snapshot import decode
from vmmd.state.translate import upgraded
from vmmd.virtio.registers import QUEUE_NOTIFY

if TYPE_CHECKING:
    from vmmd.state.manifest import MemoryManifest

_KVM_RUN = 0xAE80
_FOLDER = "/dev/shm"
ROUNDS = 9
_RESTED_S = 0.5  # then all that is loaded ahead is loaded
_DEVICE_GSIS = range(layout.GSI_FIRST, layout.GSI_FIRST + 4)
_SLOTS = layout.virtio_slots(2)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Files of a snapshot, and its vCPU's and VM's state as KVM's bytes."""

    state: Path
    memory: Path
    manifest: MemoryManifest
    cpuid: bytes
    parts: tuple[tuple[VcpuPart, bytes], ...]
    msrs: tuple[tuple[tuple[tuple[int, int], ...], bytes], ...]
    events: bytes
    pit: bytes
    clock: bytes
    chips: tuple[bytes, ...]

    def as_bytes(self) -> bytes:
        """What the twin reads: a struct of C, whose parts begin at multiples of 8."""
        parts = b"".join(raw.ljust(-len(raw) % 8 + len(raw)) for _, raw in self.parts)
        vm = b"".join((self.pit, self.clock, *self.chips))
        msrs = b"".join(raw[8:] for _, raw in self.msrs)
        counts = (len(self.cpuid) // 40, len(msrs) // 16)
        head = b"".join(count.to_bytes(4, "little") for count in counts)
        return parts + self.events + vm + head + self.cpuid + msrs


@functools.cache
def _snapshot(mem_size_mib: int) -> Snapshot:
    """A Full of a guest that prints all the time: its first exit comes at once."""
    folder = _folder() / str(mem_size_mib)
    folder.mkdir()
    kernel, state, memory = (folder / name for name in ("kernel", "state", "memory"))
    kernel.write_bytes(kernel_image(FLOOD))
    machine = {"vcpu_count": 1, "mem_size_mib": mem_size_mib}
    target = {"snapshot_path": str(state), "mem_file_path": str(memory)}
    with daemon(folder) as vm:
        vm.api.ok("PUT", "/machine-config", machine)
        vm.api.ok("PUT", "/boot-source", {"kernel_image_path": str(kernel)})
        vm.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})
        vm.api.ok("PATCH", "/vm", {"state": "Paused"})
        vm.api.ok("PUT", "/snapshot/create", target)
    return _read(state, memory)


def _read(state: Path, memory: Path) -> Snapshot:
    file = upgraded(decode(state.read_bytes()), RECORDS)
    saved = saved_of(file.records)
    vcpu, vm = saved.vcpus[0], saved.vm
    pack = {
        VcpuPart.MP_STATE: vcpu.mp_state.pack(),
        VcpuPart.REGS: vcpu.regs.pack(),
        VcpuPart.SREGS: vcpu.sregs.pack(),
        VcpuPart.XSAVE: vcpu.xsave.pack(4096),
        VcpuPart.XCRS: vcpu.xcrs.pack(),
        VcpuPart.DEBUGREGS: vcpu.debug_regs.pack(),
        VcpuPart.LAPIC: vcpu.lapic.pack(),
    }
    return Snapshot(
        state,
        memory,
        file.header.manifest,
        pack_cpuid(vcpu.cpuid),
        tuple(pack.items()),
        pack_chunks(vcpu.msrs),
        vcpu.vcpu_events.pack(),
        vm.pitstate.pack(),
        vm.clock.to_set(clock_realtime=False).pack(),
        (
            pack_irqchip(IrqChip.PIC_MASTER, vm.pic_master),
            pack_irqchip(IrqChip.PIC_SLAVE, vm.pic_slave),
            pack_irqchip(IrqChip.IOAPIC, vm.ioapic),
        ),
    )


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vmmd-bench-", dir=_FOLDER)


def _folder() -> Path:
    return Path(_scratch().name)


# -- restore-core


def _core(mem_size_mib: int) -> float:
    """Milliseconds from the memory file's name to the guest's first exit."""
    snapshot = _snapshot(mem_size_mib)
    with closing(Kvm.open()) as kvm:
        return median(_round(kvm, snapshot) for _ in range(ROUNDS))


def _round(kvm: Kvm, snapshot: Snapshot) -> float:
    with ExitStack() as stack:
        began = time.perf_counter()
        _restore(kvm, snapshot, stack)
        return (time.perf_counter() - began) * 1e3


def _restore(kvm: Kvm, snapshot: Snapshot, stack: ExitStack) -> None:
    manifest = snapshot.manifest
    fd = open_memory_file(str(snapshot.memory), manifest.size, None)
    memory = map_snapshot_memory(manifest.regions, fd)
    stack.callback(unmap_guest_memory, memory)
    vm = stack.enter_context(closing(kvm.create_vm()))
    vm.set_tss_addr(layout.KVM_TSS)
    vm.set_identity_map_addr(layout.KVM_IDENTITY_MAP)
    region = memory.native.region[0]
    host = int(ffi.cast("uintptr_t", region.host))
    vm.set_user_memory_region(0, 0, int(region.size), host)
    vm.create_irqchip()
    vm.create_pit2()
    vcpu = stack.enter_context(closing(vm.create_vcpu(0)))
    _set_vcpu(vcpu, snapshot)
    vm.set_pit2(snapshot.pit)
    vm.set_clock(snapshot.clock)
    for chip in snapshot.chips:
        vm.set_irqchip(chip)
    _wire(vm, stack)
    ioctl(vcpu.fd, "KVM_RUN", _KVM_RUN)


def _set_vcpu(vcpu: VcpuFd, snapshot: Snapshot) -> None:
    vcpu.set_cpuid2(snapshot.cpuid)
    for part, raw in snapshot.parts:
        vcpu.set(part, raw)
    vcpu.set_packed_msrs(snapshot.msrs)
    vcpu.set(VcpuPart.VCPU_EVENTS, snapshot.events)


def _wire(vm: Vm, stack: ExitStack) -> None:
    for slot in _SLOTS:
        vm.ioeventfd(slot.base + QUEUE_NOTIFY, _event(stack), 4, 0)
    for gsi in _DEVICE_GSIS:
        vm.irqfd(gsi, _event(stack))


def _event(stack: ExitStack) -> int:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _twin(mem_size_mib: int) -> float:
    """The same by the C program."""
    snapshot = _snapshot(mem_size_mib)
    state = snapshot.state.with_name("twin")
    state.write_bytes(snapshot.as_bytes())
    command = [str(_program()), str(state), str(snapshot.memory), str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return median(map(float, done.stdout.split())) / 1e3


@functools.cache
def _program() -> Path:
    return build_twin("restore.c")


# -- PUT /snapshot/load


def _load(mem_size_mib: int, *, rested: bool = True) -> float:
    """Milliseconds from the request to its 204."""
    snapshot = _snapshot(mem_size_mib)
    asked = request(
        "PUT",
        "/snapshot/load",
        {
            "snapshot_path": str(snapshot.state),
            "mem_backend": {
                "backend_type": "File",
                "backend_path": str(snapshot.memory),
            },
            "resume_vm": True,
        },
    )
    with tempfile.TemporaryDirectory(dir=_FOLDER) as name, daemon(Path(name)) as vm:
        if rested:
            vm.api.ok("GET", "/")
            time.sleep(_RESTED_S)
        return _answered_ms(vm, asked)


def _answered_ms(vm: Daemon, asked: bytes) -> float:
    with socket.socket(socket.AF_UNIX) as client:
        connect(client, vm.sock, 0.0001)
        client.settimeout(CONNECT_DEADLINE_S)
        began = time.perf_counter()
        client.sendall(asked)
        answer = client.recv(4096)
        took = (time.perf_counter() - began) * 1e3
    if not answer.startswith(b"HTTP/1.1 204"):
        raise RuntimeError(f"refused: {answer!r}")
    return took


BENCHES = (
    Bench("restore_core_128", "ms", partial(_core, 128), partial(_twin, 128), 1.25),
    Bench("restore_core_1024", "ms", partial(_core, 1024), partial(_twin, 1024)),
    Bench("load_warm_128", "ms", partial(_load, 128), partial(_twin, 128), 4),
    Bench("load_warm_1024", "ms", partial(_load, 1024), partial(_twin, 1024)),
    Bench(
        "load_fresh_128", "ms", partial(_load, 128, rested=False), partial(_load, 128)
    ),
    Bench("load_1024_to_128", "ms", partial(_load, 1024), partial(_load, 128), 1.3),
)
