"""Custom CPU templates: what to change of the CPU that KVM offers."""

from __future__ import annotations

from vmmd.frozen import dataclass


@dataclass(frozen=True, slots=True)
class RegisterFilter:
    """A bitmap ``0b1x0``: bits of ``filter`` are replaced by those of ``value``."""

    filter: int
    value: int


@dataclass(frozen=True, slots=True)
class KvmCapability:
    """A capability to check beside (or, ``remove``, not to check of) our own."""

    number: int
    remove: bool


@dataclass(frozen=True, slots=True)
class CpuidRegisterModifier:
    """Change of one register (``eax`` .. ``edx``) of a CPUID leaf."""

    register: str
    bitmap: RegisterFilter


@dataclass(frozen=True, slots=True)
class CpuidLeafModifier:
    """Changes of one CPUID leaf; ``flags`` are KVM's."""

    leaf: int
    subleaf: int
    flags: int
    modifiers: tuple[CpuidRegisterModifier, ...]


@dataclass(frozen=True, slots=True)
class MsrModifier:
    """Change of the model-specific register at ``addr``."""

    addr: int
    bitmap: RegisterFilter


@dataclass(frozen=True, slots=True)
class CustomCpuTemplate:
    """``PUT /cpu-config``: what to change of the CPU that KVM offers."""

    kvm_capabilities: tuple[KvmCapability, ...] = ()
    cpuid_modifiers: tuple[CpuidLeafModifier, ...] = ()
    msr_modifiers: tuple[MsrModifier, ...] = ()
