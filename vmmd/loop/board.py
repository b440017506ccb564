"""A machine on KVM: every fd, thread and pump of one running guest.

Built whole or not at all, in the order that KVM is quick with: addresses,
memory slots, interrupt controllers, vCPUs and their state, ioeventfds, irqfds.
The threads are parked until ``run``. Teardown in the order that never frees
what a thread may touch: stop, joined, workers back, then descriptors.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from vmmd._native import ffi
from vmmd.boot import layout
from vmmd.errors import HostError
from vmmd.frozen import dataclass
from vmmd.loop.eventfd import EventFd
from vmmd.loop.files import unmap_guest_memory
from vmmd.loop.vcpu import VcpuThreads
from vmmd.loop.vcpu_state import set_state
from vmmd.virtio.registers import QUEUE_NOTIFY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vmmd.bus import Window
    from vmmd.cpu.exits import VmEnd
    from vmmd.cpu.state import VcpuState
    from vmmd.cpu.vm_state import VmState
    from vmmd.loop.console import Console
    from vmmd.loop.kvm import Kvm
    from vmmd.loop.pump import Pump
    from vmmd.loop.vcpufd import VcpuFd
    from vmmd.machine import Attached, Machine

_STUCK_EXIT_CODE = 1
_LAST_WORDS_S = 0.25  # what a slow reader of the console gets at the end


@dataclass(frozen=True, slots=True)
class KvmState:
    """What KVM is given of a guest: a boot's or a snapshot's.

    ``vm`` None: a new VM's, as KVM makes it. ``clock_realtime``: the guest's
    clock goes on as if it had not been stopped.
    """

    vcpus: Sequence[VcpuState]
    vm: VmState | None = None
    clock_realtime: bool = False


class Board:
    """One guest on KVM, which starts with ``state``.

    ``pumps`` serve the machine's devices, by the name each is attached under.
    HostError if KVM refuses something; nothing is left open then.
    """

    def __init__(
        self,
        kvm: Kvm,
        machine: Machine,
        state: KvmState,
        console: Console,
        pumps: Mapping[str, Pump],
        *,
        track_dirty_pages: bool = False,
    ) -> None:
        self.machine = machine
        self.console = console
        self.pumps = pumps
        self.end: VmEnd | None = None
        self.over = trio.Event()
        self.on_boot_time: Callable[[], None] = lambda: None
        self.without_kvmclock = 0
        """How often a vCPU could not be told that it was stopped."""
        self._irqs: dict[int, EventFd] = {}
        self._kicks: dict[str, EventFd] = {}
        self.vcpus: list[VcpuFd] = []
        self.tracks_dirty_pages = track_dirty_pages
        self._wrote = False
        with ExitStack() as self._fds:
            self._build(kvm, state, track_dirty_pages=track_dirty_pages)
            self.threads = VcpuThreads(self.vcpus, machine.bus.windows)
            machine.on_rules = self.threads.set_rules
            self._fds = self._fds.pop_all()

    # -- Building

    def _build(self, kvm: Kvm, state: KvmState, *, track_dirty_pages: bool) -> None:
        """KVM's part. What is opened is closed by ``_fds``, last first."""
        self.vm = kvm.create_vm()
        self._fds.callback(self.vm.close)
        self.vm.set_tss_addr(layout.KVM_TSS)
        self.vm.set_identity_map_addr(layout.KVM_IDENTITY_MAP)
        self._set_memory(track_dirty_pages=track_dirty_pages)
        self.vm.create_irqchip()
        self.vm.create_pit2()
        for index in range(len(state.vcpus)):
            self.vcpus.append(self.vm.create_vcpu(index))
            self._fds.callback(self.vcpus[index].close)
        for vcpu, its in zip(self.vcpus, state.vcpus, strict=True):
            set_state(vcpu, its)
        if state.vm is not None:
            self._restore_vm(state, state.vm)
        for attached in self.machine.attached:
            self._wire(attached)
        generation_gsis = self.machine.generation_gsis
        for gsi in (layout.COM1_GSI, layout.KEYBOARD_GSI, *generation_gsis):
            self._irq(gsi)
        self.machine.tell_generation(os.urandom(16), restored=state.vm is not None)
        for gsi in generation_gsis if state.vm is not None else ():
            self._irqs[gsi].signal()

    def _set_memory(self, *, track_dirty_pages: bool) -> None:
        flags = 1 if track_dirty_pages else 0
        for slot, region in enumerate(self.machine.memory.regions):
            native = self.machine.memory.native.region[slot]
            address = int(ffi.cast("uintptr_t", native.host))
            size = int(native.size)
            self.vm.set_user_memory_region(slot, region.gpa, size, address, flags)

    def _restore_vm(self, state: KvmState, vm: VmState) -> None:
        from vmmd.loop.vcpu_state import tell_stopped
        from vmmd.loop.vm_state import (  # a boot does not need them
            set_tsc_offsets,
            set_vm_state,
        )

        set_vm_state(self.vm, vm, clock_realtime=state.clock_realtime)
        vcpus = zip(self.vcpus, state.vcpus, strict=True)
        set_tsc_offsets(self.vm, vcpus, vm.clock)
        for vcpu in self.vcpus:
            self.without_kvmclock += not tell_stopped(vcpu)

    def _wire(self, attached: Attached) -> None:
        """Kicks in by one eventfd a device, interrupts out by another."""
        kick = self._kicks[attached.name] = self._event()
        address = attached.slot.base + QUEUE_NOTIFY
        for queue in range(len(attached.transport.rings)):
            self.vm.ioeventfd(address, kick.fd, 4, queue)
        attached.transport.irq.fd = self._irq(attached.slot.gsi).fd
        attached.transport.irq.resignal()  # a restored one may have been lost

    def _irq(self, gsi: int) -> EventFd:
        line = self._irqs[gsi] = self._event()
        self.vm.irqfd(gsi, line.fd)
        return line

    def _event(self) -> EventFd:
        event = EventFd()
        self._fds.callback(event.close)
        return event

    # -- Running

    async def serve(self, nursery: trio.Nursery) -> None:
        """Start the threads, parked, and the pumps as tasks of ``nursery``.

        HostError if the host has no more threads; then only ``close`` is left.
        """
        self.threads.start()
        nursery.start_soon(self.threads.pump, self)
        nursery.start_soon(self.console.run, self.settled)
        for attached in self.machine.attached:
            pump = self.pumps[attached.name]
            kick = self._kicks[attached.name]
            nursery.start_soon(pump.pump, attached.transport, kick)

    def run(self) -> None:
        """Let the guest go (on)."""
        for pump in self.pumps.values():
            pump.resume()
        self.threads.run()

    async def pause(self) -> None:
        """Stop the guest: vCPUs parked, nothing posted, nothing in flight."""
        self.threads.request_pause()
        await self.threads.wait_parked()
        for pump in self.pumps.values():
            await pump.quiesce()

    def config_changed(self, name: str) -> None:
        """Tell the driver of the device ``name`` that its configuration is new."""
        for attached in self.machine.attached:
            if attached.name == name:
                attached.transport.config_changed()

    def finish(self, end: VmEnd) -> None:
        """The guest has ended; the first reason counts."""
        if self.end is None:
            self.end = end
            self.over.set()

    async def close(self) -> tuple[HostError, ...]:
        """Stop and join everything, then free it; call it shielded.

        The pumps must have ended, or be about to be cancelled by the caller.
        Returns what pumps could not write out: the rest is done all the same.
        """
        self.threads.request_stop()
        stuck = await self.threads.join()
        await self.console.finish(_LAST_WORDS_S)
        self.console.close()
        if stuck:
            os.write(2, f"vCPU threads {stuck} did not stop; leaving\n".encode())
            os._exit(_STUCK_EXIT_CODE)
        lost = []
        for pump in self.pumps.values():
            try:
                await pump.aclose()
            except HostError as error:
                lost.append(error)
        self.threads.close()
        self._fds.close()
        unmap_guest_memory(self.machine.memory)
        return tuple(lost)

    # -- Exits (vmmd.loop.exit_handler)

    def posted(self, window: Window, offset: int, size: int, value: int) -> None:
        """A posted write."""
        self.machine.posted(window, offset, size, value)

    def io_in(self, port: int, size: int, count: int) -> bytes:
        """Reads of a port."""
        return self.machine.io_in(port, size, count)

    def io_out(self, port: int, size: int, data: bytes) -> None:
        """Writes to a port."""
        self.machine.io_out(port, size, data)

    def mmio_read(self, address: int, size: int) -> bytes:
        """A read of an address."""
        return self.machine.mmio_read(address, size)

    def mmio_write(self, address: int, data: bytes) -> None:
        """A write to an address; a kick that came this way is passed on."""
        self._wrote = True
        self.machine.mmio_write(address, data)
        for attached in self.machine.attached:
            if attached.transport.take_kicks():
                self._kicks[attached.name].signal()

    def holding(self) -> bool:
        """A driver may use its memory again once its reset is answered: not
        before the last worker has left it."""
        wrote, self._wrote = self._wrote, False
        return wrote and bool(self._resetting())

    async def released(self) -> None:
        """Wait for the workers of devices that were reset."""
        for pump in self._resetting():
            await pump.idle()

    def _resetting(self) -> list[Pump]:
        return [
            self.pumps[attached.name]
            for attached in self.machine.attached
            if not attached.transport.status and self.pumps[attached.name].busy
        ]

    def ended(self, end: VmEnd) -> None:
        """A vCPU has ended by itself."""
        self.settled()
        self.finish(end)

    def settled(self) -> None:
        """After a burst: print what was written, raise what is wanted."""
        self.console.flush()
        for gsi in self.machine.take_interrupts():
            self._irqs[gsi].signal()
        timer = self.machine.boot_timer
        if timer is not None and timer.take_signal():
            self.on_boot_time()
        if (end := self.machine.take_end()) is not None:
            self.finish(end)
