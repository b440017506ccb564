"""Debian's own kernels boot under vmmd: each form, CPU count and way to end."""

from __future__ import annotations

import http.client
import json
import re
import socket
from typing import TYPE_CHECKING

import pytest

from tests.helpers.guest import Monitor, boot, cmdline, qemu_microvm, vmmd

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images

# How the kernel was entered, as it sees it: Documentation/x86/boot.rst gives
# loaders their numbers; the kernel's own PVH entry fills in 0xb0.
LOADER_64_BIT = 0xFF
LOADER_PVH = 0xB0
LOOK = """
echo LOADER $(cat /proc/sys/kernel/bootloader_type)
echo CPUS $(nproc) of $(ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l)
echo CORES $(cat /sys/devices/system/cpu/cpu0/topology/core_siblings_list)
echo MEMORY $(sed -n 's/MemTotal: *//p' /proc/meminfo)
dmesg | grep -E 'ACPI (Error|BIOS|Warning)|firmware bug|MP-BIOS|smpboot: .*timed' |
    sed 's/^/COMPLAINT /'
"""
INITCALL_MARGIN_US = 100_000
INITCALL_ROUNDS = 5


def number(output: str, name: str) -> int:
    """The number that the guest printed after this word."""
    found = re.search(rf"^{name} (\d+)", output, re.MULTILINE)
    assert found, f"no {name} in:\n{output}"
    return int(found[1])


@pytest.mark.parametrize(
    ("form", "loader", "cpus"),
    [
        ("bzimage", LOADER_64_BIT, 2),
        ("vmlinux", LOADER_PVH, 8),
        ("vmlinux64", LOADER_64_BIT, 1),
    ],
)
def test_a_kernel_boots_from_each_form(
    guest_images: Images, form: str, loader: int, cpus: int
) -> None:
    kernel: Path = getattr(guest_images.cloud, form)
    arguments = cmdline("run", script=LOOK)
    done = boot(vmmd(kernel, guest_images.cloud, arguments, cpus=cpus))
    assert number(done.output, "LOADER") == loader
    assert f"CPUS {cpus} of {cpus}\n" in done.output
    assert number(done.output, "MEMORY") > 200_000
    assert "COMPLAINT" not in done.output
    assert done.child.returncode == 0


@pytest.mark.parametrize("mem_mib", [128, 3584, 6144])
def test_memory_up_to_and_past_the_32_bit_gap(
    guest_images: Images, mem_mib: int
) -> None:
    cloud = guest_images.cloud
    command = vmmd(
        cloud.vmlinux64, cloud, cmdline("run", script=LOOK), mem=f"{mem_mib}M"
    )
    done = boot(command)
    # The kernel keeps its image, bounce buffers and 1/64 for page structures.
    seen_mib = number(done.output, "MEMORY") / 1024
    assert mem_mib * 63 / 64 - 128 < seen_mib < mem_mib
    assert done.child.returncode == 0


def test_the_mptable_alone_shows_all_cpus(guest_images: Images) -> None:
    full = guest_images.full
    # Without ACPI the kernel is not told that there is no RTC (it would look for
    # one for seconds) and cannot power off (so it reboots).
    more = "acpi=off initcall_blacklist=cmos_init"
    arguments = cmdline("run,reboot", more=more, script=LOOK)
    done = boot(vmmd(full.vmlinux64, full, arguments, cpus=2))
    assert "CPUS 2 of 2\n" in done.output
    assert done.child.returncode == 0


@pytest.mark.parametrize(
    ("way", "exit_code"), [("reboot=k", 0), ("reboot=t", 1), ("reboot=a", 0)]
)
def test_a_reboot_ends_the_process(
    guest_images: Images, way: str, exit_code: int
) -> None:
    """By the keyboard controller, by a triple fault, by ACPI's reset register."""
    cloud = guest_images.cloud
    done = boot(vmmd(cloud.vmlinux64, cloud, cmdline("reboot", more=way)))
    assert "VMMD-GUEST-READY" in done.output
    assert done.child.returncode == exit_code


def test_the_console_echoes(guest_images: Images) -> None:
    cloud = guest_images.cloud
    with Monitor(vmmd(cloud.vmlinux64, cloud, cmdline("echo"))) as monitor:
        monitor.expect("VMMD-GUEST-ECHO")
        # More than the UART's FIFO of 16 at once.
        text = "the quick brown fox jumps over the lazy dog " * 3
        monitor.send(f"{text}\n")
        monitor.expect(f"you said: {text.strip()}")
        monitor.send("quit\n")
        assert monitor.finish() == 0


def test_ctrl_alt_del_reaches_init(guest_images: Images, tmp_path: Path) -> None:
    cloud, path = guest_images.cloud, tmp_path / "api"
    command = vmmd(
        cloud.vmlinux64, cloud, cmdline("cad"), more=("--api-sock", str(path))
    )
    with Monitor(command) as monitor:
        monitor.expect("VMMD-GUEST-WAITS")
        assert put_action(path, "SendCtrlAltDel") == 204
        monitor.expect("VMMD-GUEST-CAD")
        assert monitor.finish() == 0


def test_no_initcall_is_slower_than_under_qemu(guest_images: Images) -> None:
    """Over 100 ms longer: a device that vmmd lacks and the guest waits for.

    Other work on the machine lengthens initcalls at random, so what looks slow
    is looked at again and the shortest time counts, on both sides.
    """
    cloud = guest_images.cloud
    arguments = cmdline("initcalls", more="initcall_debug log_buf_len=1M")
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    for _ in range(INITCALL_ROUNDS):
        keep_shortest(ours, boot(vmmd(cloud.bzimage, cloud, arguments)).output)
        keep_shortest(theirs, boot(qemu_microvm(cloud, arguments)).output)
        slower = {
            name: (took, theirs.get(name, 0))
            for name, took in ours.items()
            if took > theirs.get(name, 0) + INITCALL_MARGIN_US
        }
        if not slower:
            break
    assert not slower


def keep_shortest(table: dict[str, int], output: str) -> None:
    """Lower the table's times to those that a guest printed."""
    lines = re.findall(r"^VMMD-GUEST-INITCALL (\S+) (\d+)$", output, re.MULTILINE)
    assert lines, output
    for name, took in lines:
        table[name] = min(int(took), table.get(name, int(took)))


def put_action(path: Path, action: str) -> int:
    """PUT /actions on the API socket; the answer's status."""
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(str(path))
    client.request("PUT", "/actions", json.dumps({"action_type": action}))
    status = client.getresponse().status
    client.close()
    return status
