"""A guest with a disk and eleven taps over the API: order, patches, pause, end."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import Daemon, daemon
from tests.helpers.network import own_network
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")
LOOP = bytes.fromhex("66baf803 b056 ee ebfe")  # prints V and loops
NETS = [f"eth{i}" for i in range(11)]
UNKNOWN = (
    "Network config error: Unable to update the net device: Failed perform action on"
    " device: Device not found"
)


@pytest.fixture
def vmm(tmp_path: Path) -> Iterator[Daemon]:
    """A process in a network of its own, a kernel and a disk configured."""
    with own_network(), daemon(tmp_path) as running:
        kernel, disk = tmp_path / "kernel", tmp_path / "disk"
        kernel.write_bytes(kernel_image(LOOP))
        disk.write_bytes(bytes(512))
        for path, body in (
            ("/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}),
            ("/boot-source", {"kernel_image_path": str(kernel)}),
        ):
            running.api.ok("PUT", path, body)
        put_nets(running, NETS)
        drive = {"drive_id": "d", "path_on_host": str(disk), "is_root_device": True}
        running.api.ok("PUT", "/drives/d", drive)
        yield running


def put_nets(vmm: Daemon, names: list[str]) -> None:
    for name in names:
        body = {"iface_id": name, "host_dev_name": f"t{name}"}
        vmm.api.ok("PUT", f"/network-interfaces/{name}", body)


def start(vmm: Daemon) -> tuple[int, object]:
    return vmm.api.call("PUT", "/actions", {"action_type": "InstanceStart"})


def get(vmm: Daemon, path: str, key: str) -> list[dict[str, object]]:
    """The array under ``key`` of an answer."""
    answer = vmm.api.ok("GET", path)
    assert isinstance(answer, dict)
    found = answer[key]
    assert isinstance(found, list)
    return found


def taps() -> set[str]:
    return {name for _, name in socket.if_nameindex()} - {"lo"}


def test_a_root_disk_and_eleven_interfaces(vmm: Daemon) -> None:
    assert start(vmm) == (204, None)
    devices = get(vmm, "/vmmd/state", "devices")
    names = ["block/d", *(f"net/{name}" for name in NETS)]
    assert [device["id"] for device in devices] == names
    assert [device["gsi"] for device in devices] == list(range(5, 17))
    assert [device["device_id"] for device in devices] == [2] + [1] * 11
    assert taps() == {f"t{name}" for name in NETS}
    vmm.process.terminate()
    vmm.wait()
    assert taps() == set()


def test_limiters_are_patched(vmm: Daemon) -> None:
    bucket = {"size": 10, "one_time_burst": None, "refill_time": 5}
    before = {"iface_id": "eth3", "rx_rate_limiter": {"ops": bucket}}
    start(vmm)
    vmm.api.ok("PATCH", "/network-interfaces/eth3", before)
    vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
    after = {
        "iface_id": "eth3",
        "tx_rate_limiter": {"bandwidth": bucket},
        "rx_rate_limiter": {"bandwidth": bucket, "ops": {"size": 0, "refill_time": 0}},
    }
    vmm.api.ok("PATCH", "/network-interfaces/eth3", after)
    vmm.api.ok("PATCH", "/vm", {"state": "Resumed"})
    shown = get(vmm, "/vm/config", "network-interfaces")[3]
    only_bytes = {"bandwidth": bucket, "ops": None}
    assert shown["rx_rate_limiter"] == shown["tx_rate_limiter"] == only_bytes
    nobody = vmm.api.call("PATCH", "/network-interfaces/x", {"iface_id": "x"})
    assert nobody == (400, {"fault_message": UNKNOWN})


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (5, None),
        (
            6,
            "Could not attach device: Error while registering ACPI with KVM: VMClock:"
            " Could not allocate GSI: The requested resource is not available.",
        ),
        (
            8,
            "Could not attach device: MMIO transport error: Failed to allocate requested"
            " resource: The requested resource is not available.",
        ),
    ],
)
def test_as_many_devices_as_there_are_interrupts(
    vmm: Daemon, more: int, text: str | None
) -> None:
    put_nets(vmm, [f"more{i}" for i in range(more)])
    status, answer = start(vmm)
    if text is None:
        assert status == 204
        assert len(get(vmm, "/vmmd/state", "devices")) == 17
    else:
        fault = f"Start microvm error: {text}"
        assert (status, answer) == (400, {"fault_message": fault})
        assert len(taps()) == 11 + more
