"""Which processors the static CPU templates are for: vendor and models.

The tables and their order are Firecracker's; what a template changes is not
applied yet, so one that fits is refused as well, in words that say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.config import CpuTemplateName
from vmmd.cpu.cpuid import AMD, INTEL, CpuidTable
from vmmd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmmd.cpu.cpuid import CpuidEntry

# CPUID leaf 1 EAX: family, model and stepping.
_SKYLAKE = 0x50654
_CASCADE_LAKE = 0x50657
_ICE_LAKE = 0x606A6
_MILAN = 0xA00F11
_FAMILY_MODEL_STEPPING = 0x0FFF_0FFF

_FITS = {
    CpuTemplateName.C3: (INTEL, (_SKYLAKE, _CASCADE_LAKE, _ICE_LAKE)),
    CpuTemplateName.T2: (INTEL, (_SKYLAKE, _CASCADE_LAKE, _ICE_LAKE)),
    CpuTemplateName.T2S: (INTEL, (_SKYLAKE, _CASCADE_LAKE)),
    CpuTemplateName.T2CL: (INTEL, (_CASCADE_LAKE, _ICE_LAKE)),
    CpuTemplateName.T2A: (AMD, (_MILAN,)),
}


def check_template(name: CpuTemplateName, cpuid: Iterable[CpuidEntry]) -> None:
    """Raise the ConfigError of InstanceStart unless ``name`` changes nothing.

    ``cpuid`` is the host's, as KVM supports it.
    """
    if name is CpuTemplateName.NONE:
        return
    host = CpuidTable(cpuid)
    vendor, models = _FITS[name]
    if host.vendor() != vendor:
        text = "CPU vendor mismatched between actual CPU and CPU template."
        raise _fault(text, "CpuVendorMismatched")
    version = host.get(1)
    if version is None or version.eax & _FAMILY_MODEL_STEPPING not in models:
        text = "The current CPU model is not permitted to apply the CPU template."
        raise _fault(text, "InvalidCpuModel")
    raise _fault(f"{name} is not built yet in this vmmd.", "NotBuilt")


def _fault(text: str, variant: str) -> ConfigError:
    fault = ConfigError(f"Failed to get CPU template: {text}")
    fault.debug = f"GetCpuTemplate({variant})"
    return fault
