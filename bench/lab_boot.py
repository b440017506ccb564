"""Start of the guest to its init: vmmd against QEMU's microvm, in one lab run.

    lab/run --images -- .venv/bin/python -m bench.lab_boot [--pairs N]

Both boot the same bzImage and initramfs with the same memory and vCPU. QEMU
waits (-S) and its clock starts at QMP's ``cont``; vmmd's at InstanceStart. Both
clocks stop when the guest's init has printed its first line on the console.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from lab.images import images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READY = b"VMMD-GUEST-READY"
CMDLINE = "console=ttyS0 reboot=k panic=-1 quiet vmmd.test=sleep"
DEADLINE_S = 120.0
FIRECRACKER = (
    "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
)


def main() -> int:
    """Print each pair and the medians; 1 if vmmd is the slower one."""
    parser = argparse.ArgumentParser(prog="bench.lab_boot", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    guest = images().cloud
    rows = []
    for _ in range(pairs):
        rows.append(
            (vmmd(guest.bzimage, guest.initrd), qemu(guest.bzimage, guest.initrd))
        )
        print(f"vmmd {rows[-1][0]:6.2f} s   QEMU {rows[-1][1]:6.2f} s", flush=True)
    ratio = median(ours / theirs for ours, theirs in rows)
    print(f"InstanceStart to init, vmmd / QEMU: {ratio:.2f} (median of {pairs} pairs)")
    return int(ratio > 1.0)


def vmmd(kernel: Path, initrd: Path) -> float:
    """Seconds from InstanceStart to init's first line."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/api"
        command = [sys.executable, "-c", FIRECRACKER, "--api-sock", path]
        with child(command) as process:
            call = _Api(path)
            call("/machine-config", {"vcpu_count": 1, "mem_size_mib": 256})
            source = {"kernel_image_path": str(kernel), "initrd_path": str(initrd)}
            call("/boot-source", source | {"boot_args": CMDLINE})
            begun = time.monotonic()
            call("/actions", {"action_type": "InstanceStart"})
            return _until_ready(process, begun)


def qemu(kernel: Path, initrd: Path) -> float:
    """Seconds from QMP's ``cont`` to init's first line."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/qmp"
        command = [
            *("qemu-system-x86_64", "-M", "microvm,accel=kvm,rtc=on", "-cpu", "host"),
            *("-m", "256", "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-serial", "stdio", "-S"),
            *("-qmp", f"unix:{path},server=on,wait=off"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", CMDLINE),
        ]
        with child(command) as process, _connected(path) as monitor:
            stream = monitor.makefile("rw")
            stream.readline()
            for order in ("qmp_capabilities", "cont"):
                begun = time.monotonic()
                stream.write(json.dumps({"execute": order}) + "\n")
                stream.flush()
                stream.readline()
            return _until_ready(process, begun)


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process with its console at hand; killed at the end."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class _Api:
    """PUTs on a Unix socket, one after the other."""

    def __init__(self, path: str) -> None:
        self._http = http.client.HTTPConnection("localhost")
        self._http.sock = _connected(path)

    def __call__(self, path: str, body: object) -> None:
        self._http.request("PUT", path, json.dumps(body))
        reply = self._http.getresponse()
        text = reply.read()
        if reply.status != 204:
            raise RuntimeError(f"PUT {path}: {reply.status} {text!r}")


def _connected(path: str) -> socket.socket:
    end = time.monotonic() + DEADLINE_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return connection


def _until_ready(process: subprocess.Popen[bytes], begun: float) -> float:
    """Seconds since ``begun`` when the console has said READY."""
    until_said(process, READY)
    return time.monotonic() - begun


def until_said(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Read a child's console until it has said this; RuntimeError after a while."""
    if process.stdout is None:
        raise RuntimeError("no console")
    seen, end = b"", time.monotonic() + DEADLINE_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while text not in seen:
            data = b""
            if selector.select(max(end - time.monotonic(), 0)):
                data = os.read(process.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError(f"no {text!r} in {DEADLINE_S} s: {seen[-500:]!r}")
            seen += data


if __name__ == "__main__":
    sys.exit(main())
