"""The demo's part that needs KVM: one guest, from curl to power-off, in two monitors."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo import network, second_life
from demo.process import Curl, DemoError, Monitor, show
from demo.screen import Times
from lab.images import images

if TYPE_CHECKING:
    from lab.images import Guest

FILE = "/demo.txt"
TEXT = "written inside the guest"
DISK = "root.ext4"
CPUS = 2
BOOT_ARGS = "console=ttyS0 reboot=k panic=1 rw vmmd.test=hello,cpus"
STILL_S = 1.0
"""How long the console of a paused guest is watched."""

_PROMPT = "# "
_LAB_NOTE = """
(One warning below, "XSAVE consistency problem", is the lab's emulated processor's:
the same kernel shows it there under QEMU's own microVM.)"""


def play(folder: Path) -> int:
    """Play it with the disk DISK of ``folder``; 0 if everything held."""
    times = Times()
    try:
        # Not in `folder`: the lab shares it by a protocol that has no sockets.
        with (
            tempfile.TemporaryDirectory(prefix="vmmd-demo-") as name,
            network.tap() as reachable,
        ):
            _play(Path(name), folder / DISK, times, reachable)
    except DemoError as error:
        show(f"\ndemo: {error}")
        return 1
    show(f"\nTimes (each call has curl's own start in it):\n{times.table()}")
    return 0


def _play(folder: Path, disk: Path, times: Times, reachable: bool) -> None:
    with Monitor(folder / "first.sock") as monitor:
        with times.measure("process start to socket"):
            monitor.wait_for_socket()
        curl = Curl(folder / "first.sock")
        with times.measure("first answer of the API"):
            curl("GET", "/")
        _configure(curl, images().cloud, disk, reachable)
        _boot(curl, monitor, times)
        _write(monitor, times)
        if reachable:
            _log_in(images().debian.key, times)
        _pause(curl, monitor, times)
        second_life.save(curl, monitor, folder, times)
        second_life.check_killed(monitor.kill())
    with Monitor(folder / "second.sock") as monitor:
        with times.measure("process start to socket"):
            monitor.wait_for_socket()
        second_life.restore(Curl(folder / "second.sock"), monitor, folder, times)
        if reachable:
            _log_in(images().debian.key, times)
        monitor.type("mount -o remount,ro /; poweroff -f")
        with times.measure("power-off to the process's end"):
            status = monitor.finish()
    if status != 0:
        raise DemoError(f"the process ended with {status}")


def _configure(curl: Curl, guest: Guest, disk: Path, reachable: bool) -> None:
    network_words = f",ssh,shell {network.IP_ARGUMENT}" if reachable else ",shell"
    curl("PUT", "/machine-config", {"vcpu_count": CPUS, "mem_size_mib": 256})
    source = {
        "kernel_image_path": str(guest.bzimage),
        "initrd_path": str(guest.initrd),
        "boot_args": BOOT_ARGS + network_words,
    }
    curl("PUT", "/boot-source", source)
    drive = {
        "drive_id": "rootfs",
        "path_on_host": str(disk),
        "is_root_device": True,
        "is_read_only": False,
        "cache_type": "Writeback",
    }
    curl("PUT", "/drives/rootfs", drive)
    if reachable:
        interface = {"iface_id": "eth0", "host_dev_name": network.TAP}
        curl("PUT", "/network-interfaces/eth0", interface)


def _boot(curl: Curl, monitor: Monitor, times: Times) -> None:
    if os.environ.get("VMMD_LAB") == "1":
        show(_LAB_NOTE)
    with times.measure("InstanceStart to the guest's init"):
        with times.measure("  of that: InstanceStart answered"):
            curl("PUT", "/actions", {"action_type": "InstanceStart"})
        monitor.expect("VMMD-GUEST-READY")
    at = monitor.expect(f"VMMD-GUEST-CPUS {CPUS}")
    monitor.expect(_PROMPT, at)


def _write(monitor: Monitor, times: Times) -> None:
    at = monitor.length
    with times.measure("a file written and read back"):
        monitor.type(f"echo {TEXT} >{FILE}; sync; echo the file says: $(cat {FILE})")
        at = monitor.expect(f"the file says: {TEXT}", at)
    monitor.expect(_PROMPT, at)


def _log_in(key: Path, times: Times) -> None:
    with times.measure("a login by ssh"):
        said = network.ssh(key, f"uname -sr; cat {FILE}; ip -brief -4 address")
    if TEXT not in said or network.GUEST not in said:
        raise DemoError("the login shows another guest")


def _pause(curl: Curl, monitor: Monitor, times: Times) -> None:
    """Between prompts, so that only what is typed could make the guest speak."""
    with times.measure("pause"):
        curl("PATCH", "/vm", {"state": "Paused"})
    at = monitor.length
    monitor.type("echo the answer is $((6 * 7))")
    time.sleep(STILL_S)  # nothing can tell that nothing comes
    if monitor.length != at:
        raise DemoError("a paused guest printed something")
    show(f"  (it is paused: for {STILL_S:.0f} s not even an echo)")
    state = json.loads(curl("GET", "/vmmd/state"))
    for vcpu in state["vcpus"]:
        show(f"  vCPU {vcpu['index']} stands at {vcpu['registers']['rip']}")
    with times.measure("resume, and the line is answered"):
        curl("PATCH", "/vm", {"state": "Resumed"})
        at = monitor.expect("the answer is 42", at)
    monitor.expect(_PROMPT, at)
