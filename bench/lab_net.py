"""iperf3 from guest to host and back: vmmd against QEMU's microvm, in one lab run.

    lab/run --images -- .venv/bin/python -m bench.lab_net [--pairs N] [--seconds S]

Both boot the same Debian image with the same memory and one vCPU, each on a tap
of its own; QEMU without vhost, so that both move each frame in a process. They
are measured in turn, while the other one is idle.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench.lab_boot import child, until_said
from lab.images import images

if TYPE_CHECKING:
    from lab.images import Images

SERVES = b"VMMD-BENCH-SERVES"
SERVER = f"echo {SERVES.decode()}; iperf3 --server"
DIRECTIONS = {"guest to host": ("--reverse",), "host to guest": ()}
GOAL = 1.0
MAC = "06:00:0a:63:{:02x}:02"


@dataclass(frozen=True, slots=True)
class Side:
    """One monitor's end: its tap is ``tap<number>``, on a network of its own."""

    number: int

    @property
    def tap(self) -> str:
        """The tap's name."""
        return f"tap{self.number}"

    @property
    def host(self) -> str:
        """The host's address."""
        return f"10.99.{self.number}.1"

    @property
    def guest(self) -> str:
        """The guest's address."""
        return f"10.99.{self.number}.2"

    @property
    def mac(self) -> str:
        """The guest's MAC."""
        return MAC.format(self.number)

    @property
    def cmdline(self) -> str:
        """The guest's command line: its address, and the server."""
        script = base64.b64encode(SERVER.encode()).decode()
        return (
            "console=ttyS0 reboot=k panic=-1 quiet root=/dev/vda ro vmmd.test=run"
            f" vmmd.ip={self.guest}/24,{self.host} vmmd.run={script}"
        )

    def make_tap(self) -> None:
        """Make the tap, up, with the host's address."""
        for words in (
            f"tuntap add dev {self.tap} mode tap",
            f"addr add {self.host}/24 dev {self.tap}",
            f"link set {self.tap} up",
        ):
            subprocess.run(["ip", *words.split()], check=True)

    def rate(self, seconds: int, *options: str) -> float:
        """Mbit/s that arrived, of one connection."""
        command = ["iperf3", "--json", "--client", self.guest, *options]
        command += ["--time", str(seconds), "--omit", "1"]
        report = subprocess.run(command, capture_output=True, check=True).stdout
        received = json.loads(report)["end"]["sum_received"]
        return float(received["bits_per_second"]) / 1e6


def main() -> int:
    """Print each pair and the medians; 1 if vmmd is the slower one."""
    parser = argparse.ArgumentParser(prog="bench.lab_net", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    ours, theirs = Side(0), Side(1)
    guests = images()
    with ExitStack() as running:
        for side, command in ((ours, vmmd), (theirs, qemu)):
            side.make_tap()
            process = running.enter_context(child(command(guests, side)))
            until_said(process, SERVES)
        ratios = [
            measure(name, ours, theirs, arguments.pairs, arguments.seconds)
            for name in DIRECTIONS
        ]
    return int(min(ratios) < GOAL)


def measure(name: str, ours: Side, theirs: Side, pairs: int, seconds: int) -> float:
    """The median of the pairs' ratios, ours by theirs, in one direction."""
    options = DIRECTIONS[name]
    ratios = []
    for _ in range(pairs):
        mine, other = ours.rate(seconds, *options), theirs.rate(seconds, *options)
        ratios.append(mine / other)
        print(f"{name}: vmmd {mine:7.1f}   QEMU {other:7.1f} Mbit/s", flush=True)
    middle, spread = median(ratios), (max(ratios) - min(ratios)) / 2
    print(f"{name}, vmmd / QEMU: {middle:.2f} ±{spread:.2f} (median of {pairs} pairs)")
    return middle


def vmmd(guests: Images, side: Side) -> list[str]:
    """``vmmd run`` with the Debian image, read-only."""
    cloud = guests.cloud
    config = {
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
        "boot-source": {
            "kernel_image_path": str(cloud.bzimage),
            "initrd_path": str(cloud.initrd),
            "boot_args": side.cmdline,
        },
        "drives": [
            {
                "drive_id": "root",
                "path_on_host": str(guests.debian.rootfs),
                "is_root_device": False,
                "is_read_only": True,
            }
        ],
        "network-interfaces": [
            {"iface_id": "eth0", "host_dev_name": side.tap, "guest_mac": side.mac}
        ],
    }
    script = (
        "import sys, tempfile; from vmmd.__main__ import firecracker\n"
        "file = tempfile.NamedTemporaryFile('w'); file.write(sys.argv.pop())\n"
        "file.flush(); sys.argv += ['--no-api', '--config-file', file.name]\n"
        "sys.exit(firecracker())"
    )
    return [sys.executable, "-c", script, json.dumps(config)]


def qemu(guests: Images, side: Side) -> list[str]:
    """QEMU's microvm with the same, its tap without vhost."""
    cloud = guests.cloud
    return [
        *("qemu-system-x86_64", "-M", "microvm,accel=kvm,rtc=on", "-cpu", "host"),
        *("-m", "256", "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-serial", "stdio"),
        *("-kernel", str(cloud.bzimage), "-initrd", str(cloud.initrd)),
        *("-append", side.cmdline),
        "-drive",
        f"id=root,file={guests.debian.rootfs},format=raw,if=none,readonly=on",
        *("-device", "virtio-blk-device,drive=root"),
        "-netdev",
        f"tap,id=net,ifname={side.tap},script=no,downscript=no,vhost=off",
        *("-device", f"virtio-net-device,netdev=net,mac={side.mac}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
