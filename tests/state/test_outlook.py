"""Which targets a state could take, as a create would say."""

from __future__ import annotations

import dataclasses

from tests.helpers.records import RING, example, record_classes
from tests.helpers.state_file import file_of
from vmmd.cpu.state import VcpuState
from vmmd.state.codec import pack
from vmmd.state.outlook import outlook
from vmmd.state.record import NOTIFICATION_SUPPRESSION
from vmmd.state.target import TargetDevice, devices_in
from vmmd.state.versions import RELEASES
from vmmd.virtio.mmio import MmioState
from vmmd.virtio.net import NetState

ALL = tuple(record_classes().values())
SUPPRESSING = dataclasses.replace(
    example(MmioState),
    driver_features=1 << 32 | 1 << 29,
    queues=(dataclasses.replace(RING, event_idx=True),),
)
NET = (pack(example(NetState), "eth0"), pack(SUPPRESSING, "net/eth0"))


def test_devices_are_those_with_a_transport() -> None:
    entries = (pack(example(VcpuState), "0"), *NET)
    assert devices_in(entries) == [TargetDevice("net", 1 << 32 | 1 << 29)]


def test_a_booted_guest_with_a_net_goes_back_to_1_1() -> None:
    prospects = outlook(file_of(*NET), ALL)
    assert tuple(item.release for item in prospects) == RELEASES
    refused = [item.release for item in prospects if item.refused]
    assert refused == ["0.23.0", "0.24.0", "0.25.0", "1.0.0"]
    assert prospects[0].refused == NOTIFICATION_SUPPRESSION
    assert [str(lost) for lost in prospects[4].lost] == [
        "net eth0: guest_mac: Saving to older snapshot version, optional MAC address"
        " will not be saved."
    ]
    assert prospects[-1].lost == ()


def test_all_losses_are_listed_also_of_a_release_that_is_refused() -> None:
    vcpu = dataclasses.replace(example(VcpuState), msrs=())
    (prospect,) = outlook(file_of(pack(vcpu, "0"), *NET), ALL, ["0.24.0"])
    assert prospect.refused == NOTIFICATION_SUPPRESSION
    assert len(prospect.lost) == 4


def test_what_the_records_refuse_is_told() -> None:
    vcpu = dataclasses.replace(example(VcpuState), msrs=())
    (prospect,) = outlook(file_of(pack(vcpu, "0")), ALL, ["1.1.0"])
    assert prospect.refused is not None
    assert prospect.refused.endswith("the MSR list is empty")
