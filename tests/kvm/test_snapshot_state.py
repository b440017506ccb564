"""A running guest's state read and set into another VM, in which it goes on."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from tests.helpers.flat import DATA, flat_vm, read_regs
from tests.helpers.vcpus import DONE, SPIN, Recorder, Setup, machine
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Xcrs
from vmmd.cpu.lapic import APIC_LVT_ERROR, LVT_MASKED, Lapic
from vmmd.cpu.registers import DebugRegs, MpState, Regs, RunState, Sregs
from vmmd.errors import SnapshotError
from vmmd.loop.host_fit import check_host
from vmmd.loop.kvm import Kvm
from vmmd.loop.vcpu_state import read_state, set_state, tell_stopped
from vmmd.loop.vcpufd import VcpuPart
from vmmd.loop.vm_state import read_vm_state, set_tsc_offsets, set_vm_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.flat import FlatVm
    from tests.helpers.vcpus import Machine
    from vmmd.cpu.state import VcpuState
    from vmmd.cpu.vm_state import VmState
    from vmmd.loop.vcpufd import VcpuFd

STEPS = 1_000_000
HOPS = 50
LEASH = DATA + 8
"""The step that no vCPU goes past: the guest cannot end before it has hopped."""

AREA = 0x10000
"""Of each vCPU, behind DATA: its step, its XMM registers, what it wrote."""

COUNTER = f"""
        mov rbx, {{area}}
        mov r8, {DATA}
        mov r9, 0x9E3779B97F4A7C15
        movq xmm1, r9
        punpcklqdq xmm1, xmm1
        pxor xmm0, xmm0
        pxor xmm7, xmm7
        xor ecx, ecx
    again:
        cmp rcx, [r8 + 8]
        jae again
        inc rcx
        paddq xmm0, xmm1
        paddq xmm7, xmm0
        imul rax, rcx, 0x5851F42D
        xor rdi, rax
        rol rdi, 7
        mov rdx, rcx
        and edx, 0xFFF
        mov [rbx + rdx * 8 + 0x1000], rdi
        lock inc qword ptr [r8]
        mov [rbx], rcx
        cmp rcx, {STEPS}
        jne again
        movdqu [rbx + 0x10], xmm0
        movdqu [rbx + 0x20], xmm7
        mov dx, {DONE}
        out dx, al
    spin:
        jmp spin"""
"""All that it leaves in memory depends on every step, and on each once."""

TIME = (0x10, 0x6E0)
"""MSRs that go on by themselves: the TSC, and a deadline that follows it."""


@pytest.fixture(scope="module")
def msr_list() -> tuple[int, ...]:
    with closing(Kvm.open()) as kvm:
        return kvm.msr_index_list()


def two_vcpus() -> FlatVm:
    flat = flat_vm([SPIN, SPIN])
    flat.vm.create_pit2()
    return flat


@pytest.fixture
def flats() -> Iterator[tuple[FlatVm, FlatVm]]:
    """Two VMs of two vCPUs that never run."""
    with closing(two_vcpus()) as one, closing(two_vcpus()) as other:
        yield one, other


def settled(state: VcpuState) -> dict[str, object]:
    """The state without what moves by itself."""
    values: dict[str, object] = {
        name: getattr(state, name) for name in state.__dataclass_fields__
    }
    values["msrs"] = [msr for msr in state.msrs if msr[0] not in TIME]
    del values["tsc_offset"]
    return values


def make_peculiar(vcpu: VcpuFd) -> None:
    """Give each part of its state something that no fresh vCPU has."""
    mark = vcpu.index + 1
    regs = Regs.unpack(vcpu.get(VcpuPart.REGS))
    sregs = Sregs.unpack(vcpu.get(VcpuPart.SREGS))
    fs = dataclasses.replace(sregs.fs, base=0x1000 * mark)
    lapic = Lapic.unpack(vcpu.get(VcpuPart.LAPIC))
    region = bytearray(vcpu.get(VcpuPart.XSAVE))
    region[160:176] = bytes([mark]) * 16  # XMM0
    region[512] |= 3
    for part, record in (
        (VcpuPart.MP_STATE, MpState(mp_state=RunState.HALTED)),
        (VcpuPart.REGS, dataclasses.replace(regs, r15=mark)),
        (VcpuPart.SREGS, dataclasses.replace(sregs, fs=fs, cr2=mark)),
        (VcpuPart.XCRS, Xcrs(xcrs=((0, 3),))),
        (VcpuPart.DEBUGREGS, DebugRegs(db0=mark)),
        (VcpuPart.LAPIC, lapic.set(APIC_LVT_ERROR, LVT_MASKED | 0x30 + mark)),
        (VcpuPart.VCPU_EVENTS, VcpuEvents(nmi_masked=1, sipi_vector=mark, flags=3)),
    ):
        vcpu.set(part, record.pack())
    vcpu.set(VcpuPart.XSAVE, bytes(region))
    vcpu.set_msrs([(0x174, mark), (0xC000_0102, 0x2000 * mark)])


def test_what_is_set_is_read_again(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    one, other = flats
    fresh = [settled(read_state(vcpu, msr_list)) for vcpu in other.vcpus]
    for vcpu in one.vcpus:
        make_peculiar(vcpu)
    states = [read_state(vcpu, msr_list) for vcpu in one.vcpus]
    for vcpu, state in zip(other.vcpus, states, strict=True):
        set_state(vcpu, state)
    again = [read_state(vcpu, msr_list) for vcpu in other.vcpus]
    assert [settled(state) for state in again] == [settled(state) for state in states]
    assert all(state.tsc_khz for state in states)
    same = {"cpuid", "tsc_khz"}
    for state, before in zip(states, fresh, strict=True):
        now = settled(state)
        assert {name for name in now if now[name] == before[name]} == same


def test_the_host_fits_its_own_guests(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    states = [read_state(vcpu, msr_list) for vcpu in flats[0].vcpus]
    with closing(Kvm.open()):
        check_host(states, "x86_64")
        edx = 1 << 31  # "pbe": KVM offers it to nobody
        *_, leaf = (entry for entry in states[1].cpuid if entry.function == 1)
        more = dataclasses.replace(leaf, edx=leaf.edx | edx)
        cpuid = tuple(more if entry is leaf else entry for entry in states[1].cpuid)
        states[1] = dataclasses.replace(states[1], cpuid=cpuid)
        with pytest.raises(SnapshotError, match="does not offer: pbe:"):
            check_host(states, "x86_64")


def test_a_tsc_of_another_frequency_is_scaled_or_refused(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    one, other = flats[0].vcpus[0], flats[1].vcpus[0]
    state = read_state(one, msr_list)
    assert state.tsc_khz
    near = dataclasses.replace(state, tsc_khz=state.tsc_khz + 1)
    set_state(other, near)
    assert other.get_tsc_khz() == state.tsc_khz
    far = dataclasses.replace(state, tsc_khz=state.tsc_khz * 9 // 10)
    if other.scales_tsc:
        set_state(other, far)
        assert other.get_tsc_khz() == far.tsc_khz
    else:
        with pytest.raises(SnapshotError, match="Could not set TSC scaling"):
            set_state(other, far)


def test_values_that_fit_no_register_are_named_and_nothing_is_set(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    one, other = flats
    state = read_state(one.vcpus[1], msr_list)
    vcpu = other.vcpus[1]
    set_state(vcpu, state)
    marked = dataclasses.replace(state.regs, r15=4)
    good = dataclasses.replace(state, regs=marked)
    wide = dataclasses.replace(state.debug_regs, db0=1 << 64)
    for bad, text in (
        (dataclasses.replace(good, debug_regs=wide), r"vcpu 1: DebugRegs\.db0: "),
        (dataclasses.replace(good, msrs=((0x174, -1),)), "vcpu 1: Msr: "),
        (dataclasses.replace(good, lapic=Lapic(regs=b"")), "vcpu 1: Lapic "),
    ):
        with pytest.raises(SnapshotError, match=text):
            set_state(vcpu, bad)
    assert read_regs(vcpu)["r15"] == 0
    vm = read_vm_state(one.vm)
    wide_pic = dataclasses.replace(vm.pic_slave, imr=256)
    with pytest.raises(SnapshotError, match=r"vm: PicState\.imr: "):
        set_vm_state(other.vm, dataclasses.replace(vm, pic_slave=wide_pic))


def test_chips_are_set_as_they_were(flats: tuple[FlatVm, FlatVm]) -> None:
    one, other = flats
    one.vm.irq_line(6, 1)
    state = read_vm_state(one.vm)
    assert state.pic_master.irr == 1 << 6
    set_vm_state(other.vm, state)
    again = read_vm_state(other.vm)
    assert again.pic_master == state.pic_master
    assert again.pic_slave == state.pic_slave
    assert again.ioapic == state.ioapic
    # KVM counts anew from when it is set; all else of the timer is the same.
    for channel, before in zip(
        again.pitstate.channels, state.pitstate.channels, strict=True
    ):
        assert (channel.count, channel.mode) == (before.count, before.mode)
        assert (channel.gate, channel.rw_mode) == (before.gate, before.rw_mode)
    assert 0 <= again.clock.clock - state.clock.clock < 10**9


def test_the_wall_clock_is_followed_only_where_it_was_saved(
    flats: tuple[FlatVm, FlatVm],
) -> None:
    one, other = flats
    state = read_vm_state(one.vm)
    clock = dataclasses.replace(state.clock, flags=0)
    unsaid = dataclasses.replace(state, clock=clock)
    with pytest.raises(SnapshotError, match="clock_realtime requested"):
        set_vm_state(other.vm, unsaid, clock_realtime=True)
    assert abs(state.clock.realtime - time.time_ns()) < 10**9  # before any run
    set_vm_state(one.vm, unsaid)
    said = read_vm_state(one.vm)
    set_vm_state(other.vm, said, clock_realtime=True)
    now = read_vm_state(other.vm).clock
    passed = now.realtime - said.clock.realtime
    assert abs(now.clock - said.clock.clock - passed) < 10_000_000  # ns


def test_tscs_go_on_in_step_with_the_clock(
    flats: tuple[FlatVm, FlatVm], msr_list: tuple[int, ...]
) -> None:
    """By a second that has passed only on the wall, if it is to be followed."""
    one, other = flats
    set_vm_state(one.vm, read_vm_state(one.vm))  # from here on KVM tells the TSC
    states = [read_state(vcpu, msr_list) for vcpu in one.vcpus]
    vm = read_vm_state(one.vm)
    earlier = dataclasses.replace(vm.clock, realtime=vm.clock.realtime - 10**9)
    vm = dataclasses.replace(vm, clock=earlier)
    pairs = list(zip(other.vcpus, states, strict=True))
    for vcpu, state in pairs:
        set_state(vcpu, state)
    set_vm_state(other.vm, vm, clock_realtime=True)
    if not set_tsc_offsets(other.vm, pairs, vm.clock):
        # This KVM's guests see the host's TSC: an offset has no effect.
        assert [vcpu.get_tsc_offset() for vcpu in other.vcpus] == [0, 0]
        return
    for vcpu, state in pairs:
        (_, before), (_, after) = state.msrs[0], vcpu.get_msrs([0x10])[0]
        passed_s = (after - before) / ((state.tsc_khz or 0) * 1000)
        assert 1 <= passed_s < 2


def test_a_guest_without_a_kvmclock_is_not_told(
    flats: tuple[FlatVm, FlatVm],
) -> None:
    assert not tell_stopped(flats[0].vcpus[0])


def sources() -> list[str]:
    return [COUNTER.format(area=DATA + AREA * (i + 1)) for i in range(2)]


class Moved:
    """A guest at rest: what a snapshot would hold of it."""

    def __init__(self, m: Machine, msr_list: tuple[int, ...]) -> None:
        self.vcpus = [read_state(vcpu, msr_list) for vcpu in m.flat.vcpus]
        self.vm: VmState = read_vm_state(m.flat.vm)
        self.memory = bytes(m.flat.memory)

    def into(self, m: Machine) -> None:
        """Set it into a machine that has not run."""
        m.flat.memory[:] = self.memory
        for vcpu, state in zip(m.flat.vcpus, self.vcpus, strict=True):
            set_state(vcpu, state)
        set_vm_state(m.flat.vm, self.vm)
        pairs = zip(m.flat.vcpus, self.vcpus, strict=True)
        set_tsc_offsets(m.flat.vm, pairs, self.vm.clock)


def step(m: Machine) -> int:
    """How far the vCPU has come that is behind."""
    at = [DATA + AREA * (i + 1) for i in range(2)]
    return min(int.from_bytes(m.flat.memory[i : i + 8], "little") for i in at)


def ends(m: Machine) -> int:
    """How many vCPUs have come to their end in this machine."""
    return sum(entry[:2] == ("out", DONE) for entry in m.handler.log)


async def run(m: Machine, leash: int, until: int, done: int) -> int:
    """Let it run past a step, or to the end, and pause; how many are at their end.

    ``done`` of them came to it in machines before.
    """
    m.flat.memory[LEASH : LEASH + 8] = leash.to_bytes(8, "little")
    m.threads.run()
    while step(m) < until or (leash >= STEPS and done + ends(m) < 2):
        await trio.lowlevel.checkpoint()
    await m.pause()
    return done + ends(m)


async def test_two_vcpus_go_on_in_machine_after_machine(
    msr_list: tuple[int, ...],
) -> None:
    """Moved again and again, they leave what a twin leaves that stayed."""
    async with machine(Setup(sources())) as twin:
        assert await run(twin, STEPS, STEPS, 0) == 2
        expected = bytes(twin.flat.memory[DATA:])
        registers = [read_regs(vcpu) for vcpu in twin.flat.vcpus]
    moved, done = None, 0
    for hop in range(1, HOPS + 1):
        async with machine(Setup(sources()), Recorder()) as m:
            m.flat.vm.create_pit2()
            if moved is not None:
                moved.into(m)
            # Now at the leash, now anywhere before it.
            until = step(m) + 1 if hop % 2 else (hop - 1) * STEPS // HOPS
            done = await run(m, hop * STEPS // HOPS, until, done)
            moved = Moved(m, msr_list)
            got = [read_regs(vcpu) for vcpu in m.flat.vcpus]
    assert done == 2
    assert moved is not None
    assert moved.memory[DATA:] == expected
    assert got == registers
    assert int.from_bytes(expected[:8], "little") == 2 * STEPS
