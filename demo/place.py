"""Where the demo runs: on this machine's own KVM, or in the lab."""

from __future__ import annotations

from dataclasses import dataclass

from vmmd.errors import HostError
from vmmd.loop.probe import NATIVE_NS, level0_ns_per_instruction


@dataclass(frozen=True, slots=True)
class Place:
    """``native``: on this machine's own KVM. ``why`` is for people."""

    native: bool
    why: str

    def __str__(self) -> str:
        where = "on this machine's own KVM" if self.native else "in the lab"
        return f"Where: {where}, since {self.why}."


def choose() -> Place:
    """Ask this machine's KVM; under 0.2 s, 5 s if a guest hangs in it."""
    try:
        cost_ns = level0_ns_per_instruction()
    except HostError as error:
        return Place(False, f"there is no usable KVM here ({error})")
    return judge(cost_ns)


def judge(cost_ns: float | None) -> Place:
    """The place for a KVM that runs a kernel's instruction in that time."""
    if cost_ns is None:
        return Place(False, "a guest of a few instructions hangs in this KVM")
    if cost_ns <= NATIVE_NS:
        return Place(True, f"it runs a kernel's instructions in {cost_ns:.1f} ns each")
    return Place(
        False,
        f"this machine's KVM emulates a kernel's instructions ({cost_ns:.0f} ns "
        f"each, where {NATIVE_NS:.0f} is the most with which one comes up)",
    )
