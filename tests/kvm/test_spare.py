"""A VM that was made ahead is the one that is taken, once."""

from __future__ import annotations

import os
from contextlib import closing

from vmmd.loop import spare
from vmmd.loop.kvm import Kvm


def _vms() -> frozenset[int]:
    """The descriptors of VMs that are open."""
    links = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # of the listing itself
    return frozenset(fd for fd, link in links.items() if link == "anon_inode:kvm-vm")


def test_what_is_kept_is_taken_once() -> None:
    spare.take().close()  # what another test may have left
    before = _vms()
    spare.keep()
    spare.keep()
    (kept,) = _vms() - before
    with closing(spare.take()) as first, closing(spare.take()) as second:
        assert first.fd != second.fd
        with closing(first.create_vm()) as vm, closing(first.create_vm()) as other:
            assert (vm.fd, other.fd != kept) == (kept, True)
    assert _vms() == before


def test_a_vm_is_made_ahead_once() -> None:
    before = _vms()
    with closing(Kvm.open()) as kvm:
        kvm.make_ahead()
        kvm.make_ahead()
        (ahead,) = _vms() - before
        with closing(kvm.create_vm()) as vm:
            assert vm.fd == ahead
            vm.create_irqchip()


def test_a_vm_that_nobody_took_is_closed_with_kvm() -> None:
    before = _vms()
    kvm = Kvm.open()
    kvm.make_ahead()
    assert len(_vms() - before) == 1
    kvm.close()
    assert _vms() == before


def test_a_vm_that_was_taken_is_its_takers() -> None:
    kvm = Kvm.open()
    kvm.make_ahead()
    with closing(kvm.create_vm()) as vm:
        kvm.close()
        assert vm.fd in _vms()
