"""Every ioctl of vmmd.loop.kvm against the machine's KVM."""

from __future__ import annotations

import os
import resource
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.flat import DATA, FlatVm, flat_vm
from tests.helpers.vcpus import MMIO, SPIN, Setup, machine
from vmmd._native import ffi
from vmmd.errors import HostError
from vmmd.loop.eventfd import EventFd
from vmmd.loop.kvm import (
    MEM_LOG_DIRTY_PAGES,
    REQUIRED,
    Cap,
    IrqChip,
    IrqRoute,
    Kvm,
)
from vmmd.loop.vcpufd import VcpuPart

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_MSR = 0x7FFF_0001


@pytest.fixture
def flat() -> Iterator[FlatVm]:
    """A VM with one vCPU that never runs."""
    made = flat_vm([SPIN])
    yield made
    made.close()


def test_what_kvm_has() -> None:
    kvm = Kvm.open()
    assert all(kvm.check_extension(cap) for cap in REQUIRED)
    cpuid = kvm.supported_cpuid()
    assert len(cpuid) % 40 == 0
    assert 0x174 in kvm.msr_index_list()
    kvm.close()


@pytest.mark.parametrize("part", VcpuPart)
def test_state_goes_out_and_in(flat: FlatVm, part: VcpuPart) -> None:
    (vcpu,) = flat.vcpus
    raw = vcpu.get(part)
    vcpu.set(part, raw)
    assert len(raw) == (vcpu.xsave_size if part is VcpuPart.XSAVE else part.size)
    if part is not VcpuPart.LAPIC:  # its timer counts
        assert vcpu.get(part) == raw


def test_cpuid_comes_back(flat: FlatVm) -> None:
    entries = flat.vcpus[0].get_cpuid2()
    assert len(entries) == len(flat.cpuid)


def test_msrs_in_chunks_and_the_refused_one_is_named(flat: FlatVm) -> None:
    (vcpu,) = flat.vcpus
    sysenter = [(0x174, 8), (0x175, 0x1000), (0x176, 0x2000)]
    vcpu.set_msrs(sysenter * 200)
    assert list(vcpu.get_msrs([index for index, _ in sysenter])) == sysenter
    assert len(vcpu.get_msrs([0x174] * 700)) == 700
    with pytest.raises(HostError, match=r"KVM_SET_MSRS.*0x7fff0001 .value 0x5"):
        vcpu.set_msrs([(0x174, 0)] * 300 + [(NO_MSR, 5), (0x175, 0)])
    with pytest.raises(HostError, match=r"KVM_GET_MSRS.*0x7fff0001"):
        vcpu.get_msrs([0x174, NO_MSR])


def test_tsc(flat: FlatVm) -> None:
    (vcpu,) = flat.vcpus
    khz = vcpu.get_tsc_khz()
    assert 100_000 < khz < 20_000_000
    vcpu.set_tsc_khz(khz)
    if vcpu.has_tsc_offset():
        vcpu.set_tsc_offset(2**64 - 12345)
        # KVM that runs guests in software has the attribute and no offset.
        assert vcpu.get_tsc_offset() in (2**64 - 12345, 0)


def test_translate(flat: FlatVm) -> None:
    (vcpu,) = flat.vcpus
    assert vcpu.translate(0x123456) == 0x123456
    assert vcpu.translate(1 << 40) is None


def test_kvmclock_ctrl_without_a_kvmclock(flat: FlatVm) -> None:
    with pytest.raises(HostError, match="KVM_KVMCLOCK_CTRL"):
        flat.vcpus[0].kvmclock_ctrl()


def test_chips_and_clock_go_out_and_in(flat: FlatVm) -> None:
    vm = flat.vm
    vm.create_pit2()
    for chip in IrqChip:
        raw = vm.get_irqchip(chip)
        assert struct.unpack_from("<I", raw) == (chip,)
        vm.set_irqchip(raw)
    vm.set_pit2(vm.get_pit2())
    clock = vm.get_clock()
    vm.set_clock(clock[:8] + bytes(40))
    assert vm.get_clock()[:8] >= b""
    assert len(clock) == 48


def test_identity_map_is_set_before_the_first_vcpu() -> None:
    kvm = Kvm.open()
    vm = kvm.create_vm()
    vm.set_identity_map_addr(0xFFFBC000)
    assert vm.check_extension(Cap.NR_MEMSLOTS) > 0
    vm.close()
    kvm.close()


async def test_lines_and_irqfds_reach_the_interrupt_controller(flat: FlatVm) -> None:
    """An edge stands as requested in the chip that the GSI is routed to."""
    flat.vm.set_gsi_routing([IrqRoute(gsi, IrqChip.PIC_MASTER, gsi) for gsi in (5, 6)])
    eventfd = EventFd()

    def requested() -> int:
        return flat.vm.get_irqchip(IrqChip.PIC_MASTER)[8 + 1]  # the IRR

    assert requested() == 0
    flat.vm.irq_line(6, 1)
    assert requested() == 1 << 6
    flat.vm.irqfd(5, eventfd.fd)
    eventfd.signal()
    with trio.fail_after(5):
        while requested() != 1 << 6 | 1 << 5:  # from a work queue of the kernel
            await trio.lowlevel.checkpoint()
    flat.vm.irqfd(5, eventfd.fd, assign=False)
    eventfd.signal()
    assert eventfd.clear() == 1
    eventfd.close()


async def test_ioeventfds_take_the_write() -> None:
    source = f"""
        mov ebx, {MMIO}
        mov eax, 1
        mov dword ptr [rbx + 0x50], 0
        mov [rbx + 0x50], eax
        mov [rbx + 0x50], eax
        mov dx, 0x600
        out dx, ax
        mov eax, 2
        mov [rbx + 0x50], eax
        ud2"""
    async with machine(Setup([source])) as m:
        eventfds = EventFd(), EventFd(), EventFd()
        m.flat.vm.ioeventfd(MMIO + 0x50, eventfds[0].fd, 4, 0)
        m.flat.vm.ioeventfd(MMIO + 0x50, eventfds[1].fd, 4, 1)
        m.flat.vm.ioeventfd(0x600, eventfds[2].fd, 2, pio=True)
        m.threads.run()
        await m.handler.ended_event.wait()
        assert [eventfd.clear() for eventfd in eventfds] == [1, 2, 1]
        m.flat.vm.ioeventfd(0x600, eventfds[2].fd, 2, pio=True, assign=False)
        for eventfd in eventfds:
            eventfd.close()
    assert m.handler.log == [("write", MMIO + 0x50, b"\2\0\0\0")]


async def test_the_dirty_log_names_the_pages_and_forgets_them() -> None:
    source = f"""
        mov ebx, {DATA}
    again:
        cmp dword ptr [rbx], 0
        je again
        mov [rbx + 0x3000], eax
        ud2"""
    async with machine(Setup([source])) as m:
        size = len(m.flat.memory)
        view = ffi.from_buffer(m.flat.memory)
        address = int(ffi.cast("uintptr_t", view))
        ffi.release(view)
        m.flat.vm.set_user_memory_region(0, 0, size, address, MEM_LOG_DIRTY_PAGES)
        m.flat.vm.get_dirty_log(0, size)
        m.threads.run()
        await trio.lowlevel.checkpoint()
        m.flat.memory[DATA] = 1
        await m.handler.ended_event.wait()
        log = int.from_bytes(m.flat.vm.get_dirty_log(0, size), "little")
        assert log >> ((DATA + 0x3000) >> 12) & 1
        again = int.from_bytes(m.flat.vm.get_dirty_log(0, size), "little")
        assert not again >> ((DATA + 0x3000) >> 12) & 1


def test_a_vcpu_index_too_large_says_so(flat: FlatVm) -> None:
    with pytest.raises(HostError, match=r"KVM_CREATE_VCPU.*more vCPUs"):
        flat.vm.create_vcpu(1 << 20)


def test_no_descriptor_left_says_so() -> None:
    """KVM_CREATE_VM without a free descriptor names the limit."""
    kvm = Kvm.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match="ulimit -n"):
            kvm.create_vm()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    kvm.close()


def test_nothing_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    flat_vm([SPIN, SPIN]).close()
    assert sorted(os.listdir("/proc/self/fd")) == before
