"""Everything of a paused machine but its memory, read off for a snapshot."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from vmmd.loop.kvm import Kvm
from vmmd.loop.vcpu_state import read_state
from vmmd.loop.vm_state import read_vm_state
from vmmd.saved import Saved

if TYPE_CHECKING:
    from vmmd.loop.board import Board
    from vmmd.vm_info import VmInfo


def collect(board: Board, info: VmInfo) -> Saved:
    """The machine as it stands; ``board`` is paused, so nothing is in flight.

    vCPUs first: reading one may take in an interrupt that the controllers hold.
    HostError if KVM refuses to tell.
    """
    with closing(Kvm.open()) as kvm:
        msr_list = kvm.msr_index_list()
    vcpus = tuple(read_state(vcpu, msr_list) for vcpu in board.vcpus)
    return Saved(info, read_vm_state(board.vm), vcpus, board.machine.save())
