"""Names, for people, of what records keep as the kernel's bytes and numbers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmmd.cpu import msrs

if TYPE_CHECKING:
    from vmmd.cpu.fpu import Xsave
    from vmmd.cpu.lapic import Lapic

_LAPIC = {
    "id": 0x20,
    "version": 0x30,
    "tpr": 0x80,
    "apr": 0x90,
    "ppr": 0xA0,
    "ldr": 0xD0,
    "dfr": 0xE0,
    "spiv": 0xF0,
    **{f"isr{i}": 0x100 + 0x10 * i for i in range(8)},
    **{f"tmr{i}": 0x180 + 0x10 * i for i in range(8)},
    **{f"irr{i}": 0x200 + 0x10 * i for i in range(8)},
    "esr": 0x280,
    "lvt_cmci": 0x2F0,
    "icr": 0x300,
    "icr2": 0x310,
    "lvt_timer": 0x320,
    "lvt_thermal": 0x330,
    "lvt_pc": 0x340,
    "lvt0": 0x350,
    "lvt1": 0x360,
    "lvt_error": 0x370,
    "timer_initial_count": 0x380,
    "timer_current_count": 0x390,
    "timer_divide": 0x3E0,
}
_XMM_AT, _XMM_SIZE, _XMM_COUNT = 160, 16, 16
_LEGACY = {
    "fcw": (0, "<H"),
    "fsw": (2, "<H"),
    "ftw": (4, "<B"),
    "mxcsr": (24, "<I"),
    "xstate_bv": (512, "<Q"),
    "xcomp_bv": (520, "<Q"),
}
_MSRS = {
    0x1B: "apic_base",
    0x34: "smi_count",
    0x3A: "feature_control",
    0x3B: "tsc_adjust",
    0x48: "spec_ctrl",
    0x8B: "ucode_rev",
    0x9E: "smbase",
    0xCE: "platform_info",
    0x122: "tsx_ctrl",
    0x140: "misc_features_enables",
    0x179: "mcg_cap",
    0x17A: "mcg_status",
    0x1D9: "debugctl",
    0x1FC: "power_ctl",
    0x277: "pat",
    0xD90: "bndcfgs",
    0xDA0: "xss",
    0x4B56_4D00: "kvm_wall_clock",
    0x4B56_4D01: "kvm_system_time",
    0x4B56_4D02: "kvm_async_pf_en",
    0x4B56_4D03: "kvm_steal_time",
    0x4B56_4D04: "kvm_pv_eoi_en",
    0x4B56_4D05: "kvm_poll_control",
    0x4B56_4D06: "kvm_async_pf_int",
    0x4B56_4D07: "kvm_async_pf_ack",
    0x4B56_4D08: "kvm_migration_control",
    0xC000_0080: "efer",
    0xC000_0100: "fs_base",
    0xC000_0101: "gs_base",
    0xC000_0103: "tsc_aux",
    0xC001_0015: "hwcr",
    **{
        number: name.removeprefix("MSR_").removeprefix("IA32_").lower()
        for name, number in vars(msrs).items()
        if name.startswith("MSR_")
    },
    **{0x200 + i: f"mtrr_phys{('base', 'mask')[i % 2]}{i // 2}" for i in range(16)},
    **{
        0x400 + i: f"mc{i // 4}_{('ctl', 'status', 'addr', 'misc')[i % 4]}"
        for i in range(128)
    },
}


def lapic_registers(lapic: Lapic) -> dict[str, int]:
    """The local APIC's registers by name."""
    return {name: lapic.get(offset) for name, offset in _LAPIC.items()}


def xsave_registers(xsave: Xsave) -> dict[str, int]:
    """What lies at fixed places of an XSAVE area: control words, SSE registers."""
    region = xsave.region
    found: dict[str, int] = {
        name: struct.unpack_from(form, region, at)[0]
        for name, (at, form) in _LEGACY.items()
    }
    for i in range(_XMM_COUNT):
        at = _XMM_AT + i * _XMM_SIZE
        found[f"xmm{i}"] = int.from_bytes(region[at : at + _XMM_SIZE], "little")
    return found


def msr_name(index: int) -> str:
    """A model-specific register's name; its number in hex if it has none here."""
    return _MSRS.get(index, f"{index:#x}")
