"""The unit as it is shipped, run by a real systemd."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.poll import until
from tests.helpers.systemd_host import SystemdHost, systemd_host
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from collections.abc import Iterator

# Process 1 of new namespaces; where that cannot be, CI takes the skip for a failure.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="systemd needs root")

UNIT = Path(__file__).parents[2] / "systemd" / "vmmd@.service"
LINE = bytes.fromhex("66baf803 b056 ee b00a ee ebfe")  # prints V and a newline, loops
RESET = bytes.fromhex("66baf803 b056 ee b00a ee b0fe e664 ebfe")  # ... and resets
SOCK = "/run/vmmd/web/api.sock"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    with systemd_host(tmp_path_factory.mktemp("systemd"), UNIT) as made:
        yield made


def configure(host: SystemdHost, name: str, code: bytes) -> None:
    """/etc/vmmd/NAME.json, for a guest of this code."""
    kernel = f"/etc/vmmd/{name}.kernel"
    host.write(kernel, kernel_image(code))
    config = {
        "boot-source": {"kernel_image_path": kernel, "boot_args": ""},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 64},
    }
    host.write(f"/etc/vmmd/{name}.json", json.dumps(config).encode())


def answer(host: SystemdHost) -> object:
    """What the API of unit "web" says, by curl, at once."""
    got = host.output("curl", "-sS", "--unix-socket", SOCK, "http://localhost/")
    return json.loads(got)["state"]


def journal(host: SystemdHost, name: str) -> list[str]:
    """The lines of a unit. They may come later than what they tell of."""
    said = host.output("journalctl", "-u", f"vmmd@{name}", "-o", "cat")
    return said.splitlines()


@pytest.fixture
def web(host: SystemdHost) -> Iterator[SystemdHost]:
    """Unit "web" was started and is ready; it is stopped afterwards."""
    configure(host, "web", LINE)
    host.output("systemctl", "reset-failed")  # and forget how often it was started
    host.output("systemctl", "start", "vmmd@web")
    yield host
    host.output("systemctl", "stop", "vmmd@web")


def test_a_started_unit_answers_at_once(web: SystemdHost) -> None:
    assert answer(web) == "Running"
    assert web.show("vmmd@web", "StatusText") == "the API is served"


def test_the_journal_has_the_log_and_the_console(web: SystemdHost) -> None:
    until(lambda: "V" in journal(web, "web"))
    assert "Successfully started microvm" in "\n".join(journal(web, "web"))


def test_a_killed_monitor_is_started_again(web: SystemdHost) -> None:
    first = web.show("vmmd@web", "MainPID")
    web.output("systemctl", "kill", "--signal=KILL", "vmmd@web")
    until(lambda: web.show("vmmd@web", "NRestarts") == "1")
    until(lambda: web.show("vmmd@web", "ActiveState") == "active")
    assert web.show("vmmd@web", "MainPID") != first
    assert answer(web) == "Running"


def test_a_stop_is_a_clean_end(web: SystemdHost) -> None:
    web.output("systemctl", "stop", "vmmd@web")
    assert web.show("vmmd@web", "Result") == "success"
    assert web.show("vmmd@web", "ActiveState") == "inactive"
    assert web.run("test", "-e", SOCK).returncode == 1


def test_a_guest_that_powers_off_is_not_started_again(host: SystemdHost) -> None:
    configure(host, "once", RESET)
    host.run("systemctl", "start", "vmmd@once")  # it may end before it is up
    until(lambda: "exit_code=0" in "\n".join(journal(host, "once")))
    # Not "activating", as before another start. Of a unit that ended well systemd
    # forgets all else, so the journal has to tell what there was.
    until(lambda: host.show("vmmd@once", "ActiveState") == "inactive")
    assert host.show("vmmd@once", "Result") == "success"
    assert journal(host, "once").count("V") == 1


def test_a_bad_file_fails_the_start_and_the_journal_says_why(host: SystemdHost) -> None:
    host.write("/etc/vmmd/bad.json", b'{"drives": []}')
    assert host.run("systemctl", "start", "vmmd@bad").returncode == 1
    host.output("systemctl", "stop", "vmmd@bad")
    until(lambda: "missing field `boot-source`" in "\n".join(journal(host, "bad")))


def test_a_vm_without_a_file_is_no_vm(host: SystemdHost) -> None:
    done = host.run("systemctl", "start", "vmmd@nobody")
    assert done.returncode == 1
    assert "Assertion failed" in done.stderr


# Write-only and of a number that no other setting of the unit forbids.
OTHER = "/run/kmsg"


@pytest.mark.parametrize(
    ("device", "status"), [("/dev/kvm", 0), ("/dev/net/tun", 0), (OTHER, 1)]
)
def test_a_unit_opens_its_own_devices_and_no_other(
    host: SystemdHost, device: str, status: int
) -> None:
    opening = f"exec 3>{device}"
    host.output("sh", "-c", f"[ -e {OTHER} ] || mknod {OTHER} c 1 11; {opening}")
    configure(host, "device", LINE)
    host.output("mkdir", "-p", "/run/units/vmmd@device.service.d")
    drop_in = f"""
        [Service]
        Type=oneshot
        Restart=no
        ExecStart=
        ExecStart=/bin/sh -c '{opening}'
    """
    host.write("/run/units/vmmd@device.service.d/test.conf", drop_in.encode())
    host.output("systemctl", "daemon-reload")
    assert host.run("systemctl", "start", "vmmd@device").returncode == status
    assert host.show("vmmd@device", "DevicePolicy") == "closed"
