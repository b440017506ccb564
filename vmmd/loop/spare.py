"""A VM that is made before anybody asks for one.

KVM takes longer to make a VM than to take all of a vCPU's state. An idle process
has the time; what comes then, a load or a start, takes the VM from here.
"""

from __future__ import annotations

from contextlib import ExitStack, closing

from vmmd.loop.kvm import Kvm

_KEPT: list[Kvm] = []


def keep() -> None:
    """Make one, unless there is one. HostError if KVM gives none."""
    if _KEPT:
        return
    with ExitStack() as undo:
        kvm = undo.enter_context(closing(Kvm.open()))
        kvm.make_ahead()
        undo.pop_all()
    _KEPT.append(kvm)


def take() -> Kvm:
    """KVM, open and checked, and the caller's; with the VM, if one was made."""
    return _KEPT.pop() if _KEPT else Kvm.open()
