"""Static CPU templates: vendor first, then the model."""

from __future__ import annotations

import struct

import pytest

from vmmd.config import CpuTemplateName
from vmmd.cpu.cpuid import AMD, INTEL, CpuidEntry
from vmmd.cpu.static_template import check_template
from vmmd.errors import ConfigError

SKYLAKE, CASCADE_LAKE, ICE_LAKE, MILAN = 0x50654, 0x50657, 0x606A6, 0xA00F11
VENDOR = "CPU vendor mismatched between actual CPU and CPU template."
MODEL = "The current CPU model is not permitted to apply the CPU template."
FITS = "is not built yet in this vmmd."


def host(vendor: bytes, version: int) -> tuple[CpuidEntry, ...]:
    ebx, edx, ecx = struct.unpack("<3I", vendor)
    return (
        CpuidEntry(function=0, eax=0x1F, ebx=ebx, ecx=ecx, edx=edx),
        CpuidEntry(function=1, eax=version),
    )


@pytest.mark.parametrize(
    ("name", "vendor", "version", "text"),
    [
        ("T2", AMD, MILAN, VENDOR),
        ("T2A", INTEL, SKYLAKE, VENDOR),
        ("T2A", AMD, 0xA10F11, MODEL),
        ("T2A", AMD, MILAN, FITS),
        ("C3", INTEL, ICE_LAKE, FITS),
        ("T2", INTEL, CASCADE_LAKE, FITS),
        ("T2S", INTEL, ICE_LAKE, MODEL),
        ("T2S", INTEL, SKYLAKE, FITS),
        ("T2CL", INTEL, SKYLAKE, MODEL),
        ("T2CL", INTEL, ICE_LAKE, FITS),
        ("C3", INTEL, 0x806F8, MODEL),
    ],
)
def test_a_template_is_for_some_processors(
    name: str, vendor: bytes, version: int, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_template(CpuTemplateName(name), host(vendor, version))
    assert str(caught.value).startswith("Failed to get CPU template: ")
    assert str(caught.value).endswith(text)
    assert caught.value.debug.startswith("GetCpuTemplate(")


def test_reserved_bits_of_the_version_do_not_count() -> None:
    with pytest.raises(ConfigError, match=FITS):
        check_template(CpuTemplateName.T2, host(INTEL, SKYLAKE | 0xF000_F000))


def test_none_is_for_every_processor() -> None:
    check_template(CpuTemplateName.NONE, host(AMD, 0))
