"""Sets and reads all state of one vCPU, in the order that KVM wants.

CPUID decides what the rest may be; sregs have the LAPIC's base; the TSC comes
before its deadline (the records keep MSRs in setting order); events last, since
setting registers clears what is pending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.cpu.cpuid import pack_cpuid, unpack_cpuid, without_padding
from vmmd.cpu.events import VcpuEvents
from vmmd.cpu.fpu import Xcrs, Xsave
from vmmd.cpu.lapic import Lapic
from vmmd.cpu.msrs import pack_chunks
from vmmd.cpu.registers import DebugRegs, MpState, Regs, Sregs
from vmmd.cpu.state import VcpuState
from vmmd.errors import HostError, SnapshotError
from vmmd.loop.vcpufd import VcpuPart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmmd.loop.vcpufd import VcpuFd


def set_state(vcpu: VcpuFd, state: VcpuState) -> None:
    """Set everything. HostError names the call, and for an MSR which one.

    SnapshotError, before anything is set: a value does not fit its register, or
    the guest's TSC had another frequency than this host's, which KVM does not
    scale.
    """
    try:
        cpuid = pack_cpuid(state.cpuid)
        parts = _packed(state, vcpu.xsave_size)
        events = state.vcpu_events.pack()
        msrs = pack_chunks(state.msrs)
    except ValueError as error:
        raise SnapshotError(f"vcpu {vcpu.index}: {error}") from error
    _scale_tsc(vcpu, state.tsc_khz)
    vcpu.set_cpuid2(cpuid)
    for part, raw in parts:
        vcpu.set(part, raw)
    vcpu.set_packed_msrs(msrs)
    vcpu.set(VcpuPart.VCPU_EVENTS, events)


def _packed(state: VcpuState, xsave_size: int) -> tuple[tuple[VcpuPart, bytes], ...]:
    """What is set between CPUID and MSRs, in order."""
    return (
        (VcpuPart.MP_STATE, state.mp_state.pack()),
        (VcpuPart.REGS, state.regs.pack()),
        (VcpuPart.SREGS, state.sregs.pack()),
        (VcpuPart.XSAVE, state.xsave.pack(xsave_size)),
        (VcpuPart.XCRS, state.xcrs.pack()),
        (VcpuPart.DEBUGREGS, state.debug_regs.pack()),
        (VcpuPart.LAPIC, state.lapic.pack()),
    )


def read_state(vcpu: VcpuFd, msr_list: Iterable[int]) -> VcpuState:
    """Read everything; every vCPU of the VM is parked.

    ``msr_list`` is KVM's (:meth:`vmmd.loop.kvm.Kvm.msr_index_list`), which
    is narrowed to what a snapshot holds. mp_state first: reading it takes in
    a pending INIT or SIPI, which changes the rest. Events last: reading the
    others may change them. HostError names the call, and for an MSR which one.
    """
    from vmmd.cpu.saved_msrs import to_save, with_deadline  # only snapshots need it

    mp_state = MpState.unpack(vcpu.get(VcpuPart.MP_STATE))
    regs = Regs.unpack(vcpu.get(VcpuPart.REGS))
    sregs = Sregs.unpack(vcpu.get(VcpuPart.SREGS))
    xsave = Xsave.unpack(vcpu.get(VcpuPart.XSAVE))
    xcrs = Xcrs.unpack(vcpu.get(VcpuPart.XCRS))
    debug_regs = DebugRegs.unpack(vcpu.get(VcpuPart.DEBUGREGS))
    lapic = Lapic.unpack(vcpu.get(VcpuPart.LAPIC))
    tsc_khz = _tsc_khz(vcpu)
    cpuid = without_padding(unpack_cpuid(vcpu.get_cpuid2()))
    msrs = with_deadline(vcpu.get_msrs(to_save(msr_list, cpuid)))
    return VcpuState(
        cpuid=cpuid,
        mp_state=mp_state,
        regs=regs,
        sregs=sregs,
        xsave=xsave,
        xcrs=xcrs,
        debug_regs=debug_regs,
        lapic=lapic,
        msrs=msrs,
        tsc_khz=tsc_khz,
        tsc_offset=vcpu.get_tsc_offset() if vcpu.has_tsc_offset() else None,
        vcpu_events=VcpuEvents.unpack(vcpu.get(VcpuPart.VCPU_EVENTS)),
    )


def tell_stopped(vcpu: VcpuFd) -> bool:
    """Tell the guest that it was stopped: its watchdog shall not bite.

    After each restore; at a pause the thread itself does it. False if it has no
    kvmclock, which is no fault.
    """
    try:
        vcpu.kvmclock_ctrl()
    except HostError:
        return False
    return True


def _scale_tsc(vcpu: VcpuFd, saved_khz: int | None) -> None:
    host_khz = _tsc_khz(vcpu) if saved_khz else None
    if not saved_khz or not host_khz:
        return
    from vmmd.cpu.host_fit import cannot_scale, must_scale  # a boot has no saved one

    if not must_scale(saved_khz, host_khz):
        return
    # Without it KVM takes a higher frequency too, and lets the TSC limp after.
    if not vcpu.scales_tsc:
        raise cannot_scale(saved_khz, host_khz, "this KVM does not scale")
    try:
        vcpu.set_tsc_khz(saved_khz)
    except HostError as error:
        raise cannot_scale(saved_khz, host_khz, str(error)) from error


def _tsc_khz(vcpu: VcpuFd) -> int | None:
    try:
        return vcpu.get_tsc_khz()
    except HostError:
        return None
