"""Everything of a paused machine but its memory, read off for a snapshot."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING

from vmmd.loop.kvm import Kvm
from vmmd.loop.vcpu_state import read_state
from vmmd.loop.vm_state import read_vm_state
from vmmd.resources.restored import mmds_state
from vmmd.saved import Saved
from vmmd.vm_info import vm_info

if TYPE_CHECKING:
    from vmmd.loop.board import Board
    from vmmd.resources.store import VmResources


def collect(board: Board, resources: VmResources) -> Saved:
    """The machine as it stands; ``board`` is paused, so nothing is in flight.

    vCPUs first: reading one may take in an interrupt that the controllers hold.
    HostError if KVM refuses to tell.
    """
    msr_list = _msr_list()
    vcpus = tuple(read_state(vcpu, msr_list) for vcpu in board.vcpus)
    return Saved(
        vm_info(resources),
        read_vm_state(board.vm),
        vcpus,
        board.machine.save(),
        mmds_state(resources.mmds),
    )


@cache
def _msr_list() -> tuple[int, ...]:
    """KVM's list; it stays the same while we live."""
    with closing(Kvm.open()) as kvm:
        return kvm.msr_index_list()
