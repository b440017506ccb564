"""A VM that was made ahead is the one that is taken, once."""

from __future__ import annotations

import os
from contextlib import closing

from vmmd.loop import spare
from vmmd.loop.kvm import Kvm


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_is_kept_is_taken_once() -> None:
    spare.keep()
    spare.keep()
    with closing(spare.take()) as first, closing(spare.take()) as second:
        assert first.fd != second.fd
        with closing(first.create_vm()) as vm, closing(first.create_vm()) as other:
            assert vm.fd != other.fd


def test_the_vm_made_ahead_is_the_next_one() -> None:
    with closing(Kvm.open()) as kvm:
        kvm.make_ahead()
        next_fd = os.dup(kvm.fd)
        os.close(next_fd)
        with closing(kvm.create_vm()) as vm:
            assert vm.fd < next_fd  # it was there before
            vm.create_irqchip()


def test_a_vm_that_nobody_took_is_closed_with_kvm() -> None:
    kvm = Kvm.open()
    kvm.make_ahead()
    ahead = os.dup(kvm.fd) - 1  # the descriptor before the next free one
    os.close(ahead + 1)
    assert os.readlink(f"/proc/self/fd/{ahead}") == "anon_inode:kvm-vm"
    kvm.close()
    assert not _is_open(ahead)


def test_a_vm_that_was_taken_is_its_takers() -> None:
    kvm = Kvm.open()
    kvm.make_ahead()
    with closing(kvm.create_vm()) as vm:
        kvm.close()
        assert _is_open(vm.fd)
