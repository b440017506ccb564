"""Network interfaces over the API, by curl, and in a config file."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import Daemon, daemon
from tests.helpers.network import IFF_TUN, make_persistent, own_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")
CREATE = "Network config error: Could not create the network device: "
BACKEND = (
    "Invalid TUN/TAP Backend provided by {}. Check our documentation on setting up the"
    " network devices."
)
IFREQ = "Open tap device failed: Error while creating ifreq structure: "
BUSY = f"{CREATE}{IFREQ}Resource busy (os error 16). {BACKEND.format('t0')}"
NO_TAP = f"{CREATE}{IFREQ}Invalid argument (os error 22). {BACKEND.format('u0')}"
MAC = "06:00:AC:10:00:02"
JSON = "An error occurred when deserializing the json body of a request: "
STEPS: list[tuple[str, dict[str, object], str | None]] = [
    ("a", {"host_dev_name": "t0", "guest_mac": MAC}, None),
    ("b", {"host_dev_name": "t0"}, BUSY),
    ("b", {"host_dev_name": "u0"}, NO_TAP),
    (
        "b",
        {"host_dev_name": "t1", "guest_mac": MAC.lower()},
        f"Network config error: The MAC address is already in use: {MAC.lower()}",
    ),
    (
        "b",
        {"host_dev_name": "t1", "guest_mac": "06:00"},
        f"{JSON}The provided MAC address is invalid. at line 1 column 62.",
    ),
    (
        "b",
        {"host_dev_name": "t1", "mtu": 67},
        f"{CREATE}MTU 67 is out of range [68, 65535]",
    ),
    (
        "b",
        {"host_dev_name": "x" * 16},
        f"{CREATE}Open tap device failed: Invalid interface name",
    ),
    ("b", {"host_dev_name": "t1", "mtu": 1400}, None),
    ("a", {"host_dev_name": "t0", "guest_mac": MAC}, None),
]
HINTS = [
    "tap 't0': TUNSETIFF: Device or resource busy (EBUSY); another process, or another"
    " interface of this VM, has the tap open: each needs one of its own",
    "tap 'u0': TUNSETIFF: Invalid argument (EINVAL); it is an interface but no tap",
    "tap 'xxxxxxxxxxxxxxxx': an interface's name has at most 15 bytes",
]


@pytest.fixture
def vmm(tmp_path: Path) -> Iterator[Daemon]:
    """A process in a network of its own, in which ``u0`` is no tap."""
    with own_network():
        make_persistent("u0", IFF_TUN)
        with daemon(tmp_path) as running:
            running.api.ok("GET", "/")
            yield running


def curl(vmm: Daemon, method: str, path: str, body: object = None) -> str:
    """What the API answers."""
    data = () if body is None else ("-d", json.dumps(body))
    command = ["curl", "-sS", "--unix-socket", str(vmm.sock), "-X", method, *data]
    url = f"http://localhost{path}"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    return done.stdout


def put(vmm: Daemon, name: str, fields: dict[str, object]) -> str | None:
    """The fault of a PUT; None if it was taken."""
    body = {"iface_id": name, **fields}
    answer = curl(vmm, "PUT", f"/network-interfaces/{name}", body)
    return json.loads(answer)["fault_message"] if answer else None


def test_interfaces_are_put_refused_and_shown(vmm: Daemon) -> None:
    for name, fields, fault in STEPS:
        assert put(vmm, name, fields) == fault
    shown = json.loads(curl(vmm, "GET", "/vm/config"))["network-interfaces"]
    none = {"rx_rate_limiter": None, "tx_rate_limiter": None}
    assert shown == [
        {
            "iface_id": "b",
            "host_dev_name": "t1",
            "guest_mac": None,
            "mtu": 1400,
            **none,
        },
        {
            "iface_id": "a",
            "host_dev_name": "t0",
            "guest_mac": MAC.lower(),
            "mtu": None,
            **none,
        },
    ]
    log = vmm.stdout()
    for hint in HINTS:
        assert f":main] {hint}" in log


def config_file(folder: Path, *nets: dict[str, object]) -> str:
    path = folder / "config.json"
    path.write_text(
        json.dumps(
            {
                "boot-source": {"kernel_image_path": "/dev/null"},
                "drives": [],
                "network-interfaces": nets,
            }
        )
    )
    return str(path)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"host_dev_name": "has/slash"},
            f"Could not create the network device: {IFREQ}Invalid argument (os error"
            f" 22). {BACKEND.format('has/slash')}",
        ),
        (
            {"host_dev_name": "t0", "mtu": 1},
            "Could not create the network device: MTU 1 is out of range [68, 65535]",
        ),
    ],
)
def test_a_config_file_that_names_what_cannot_be(
    tmp_path: Path, fields: dict[str, object], text: str
) -> None:
    path = config_file(tmp_path, {"iface_id": "a", **fields})
    with own_network(), daemon(tmp_path, "--no-api", "--config-file", path) as vmm:
        assert vmm.wait() == 1
        assert (
            "RunWithoutApiError error: Failed to build MicroVM from Json: Configuration"
            f" for VMM from one single json failed: Network device error: {text}"
        ) in vmm.stdout()
        assert len(vmm.stdout().splitlines()) == 3  # no hint but at Debug
        assert "ParseFromJson(NetDevice(CreateNetworkDevice(" in vmm.stderr()


def test_a_config_file_with_a_mac_twice(tmp_path: Path) -> None:
    nets: list[dict[str, object]] = [
        {"iface_id": name, "host_dev_name": f"t{name}", "guest_mac": MAC}
        for name in "ab"
    ]
    path = config_file(tmp_path, *nets)
    with own_network(), daemon(tmp_path, "--config-file", path) as vmm:
        assert vmm.wait() == 1
        text = f"Network device error: The MAC address is already in use: {MAC.lower()}"
        assert text in vmm.stdout()
