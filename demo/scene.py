"""The demo's part that needs KVM: one guest, from curl to power-off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.images import images

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "/demo.txt"
TEXT = "written inside the guest"
CMDLINE = "console=ttyS0 reboot=k panic=1 quiet rw vmmd.test=hello,cpus,shell"
DEADLINE_S = 120.0
STILL_S = 1.0
"""How long the console of a paused guest is watched."""


class DemoError(Exception):
    """Something did not hold; the text says what."""


@dataclass(slots=True)
class Times:
    """What was measured, in the order of happening."""

    rows: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Add a row with the time that the block takes."""
        began = time.monotonic()
        yield
        self.rows.append((what, time.monotonic() - began))

    def table(self) -> str:
        """The rows, for people."""
        return "\n".join(f"  {what:<44} {s * 1e3:9.1f} ms" for what, s in self.rows)


class Console:
    """The guest's console: printed as it comes, and remembered."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._seen = ""
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the console is not a pipe")
        while data := os.read(self._process.stdout.fileno(), 65536):
            text = data.decode(errors="replace").replace("\r", "")
            sys.stdout.write(text.replace("\n", "\n    | "))
            sys.stdout.flush()
            with self._changed:
                self._seen += text
                self._changed.notify_all()

    def type(self, line: str) -> None:
        """Type a line."""
        if self._process.stdin is None:
            raise RuntimeError("the console has no input")
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def expect(self, text: str, after: int = 0) -> int:
        """Wait until ``text`` was printed past ``after``; where it ends."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: text in self._seen[after:], DEADLINE_S
            ):
                raise DemoError(f"the guest did not say {text!r} in {DEADLINE_S:.0f} s")
            return self._seen.index(text, after) + len(text)

    @property
    def length(self) -> int:
        """How much was printed."""
        with self._changed:
            return len(self._seen)


class Curl:
    """Each call is shown, made by curl itself, and its answer shown."""

    def __init__(self, sock: Path) -> None:
        self._sock = sock

    def __call__(self, method: str, path: str, body: object = None) -> str:
        """The answer's body. DemoError unless the status is 200 or 204."""
        data = [] if body is None else ["-d", json.dumps(body)]
        shown = "" if body is None else f" -d '{json.dumps(body)}'"
        print(f"\n$ curl --unix-socket api.sock -X {method} localhost{path}{shown}")
        text, _, status = self._curl(method, path, data).rpartition("|")
        print(f"  {status} {text[:400]}{' ...' if len(text) > 400 else ''}", flush=True)
        if status not in ("200", "204"):
            raise DemoError(f"{method} {path} answered {status}")
        return text

    def _curl(self, method: str, path: str, data: list[str]) -> str:
        command = ["curl", "-sS", "--unix-socket", str(self._sock), "-X", method]
        command += [*data, "-w", "|%{http_code}", f"http://localhost{path}"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout


def play(folder: Path) -> int:
    """Play it with the disk ``root.ext4`` of ``folder``; 0 if everything held."""
    times = Times()
    python = (
        "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
    )
    # Not in `folder`: the lab shares it by a protocol that has no sockets.
    sock = Path(tempfile.mkdtemp(prefix="vmmd-demo-")) / "api.sock"
    command = [sys.executable, "-c", python, "--api-sock", str(sock)]
    command += ["--level", "Warning", "--id", "demo"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    try:
        with times.measure("process start to the socket"):
            _wait_for(sock, process)
        _acts(Curl(sock), Console(process), process, times, folder / "root.ext4")
    except DemoError as error:
        print(f"\ndemo: {error}")
        return 1
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(sock.parent)
    print(f"\n{times.table()}")
    return 0


def _acts(
    curl: Curl,
    console: Console,
    process: subprocess.Popen[bytes],
    times: Times,
    disk: Path,
) -> None:
    with times.measure("first answer of the API"):
        curl("GET", "/")
    _configure(curl, disk)
    with times.measure("InstanceStart to the guest's init"):
        with times.measure("InstanceStart answered"):
            curl("PUT", "/actions", {"action_type": "InstanceStart"})
        console.expect("VMMD-GUEST-READY")
    console.expect("VMMD-GUEST-CPUS 2")
    _write(console, times)
    _pause(curl, console, times)
    print("\n(typing into the guest: poweroff)")
    console.type("mount -o remount,ro /; poweroff -f")
    with times.measure("power-off to the process's end"):
        status = process.wait(DEADLINE_S)
    if status != 0:
        raise DemoError(f"the process ended with {status}")


def _configure(curl: Curl, disk: Path) -> None:
    guest = images().cloud
    curl("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 256})
    source = {
        "kernel_image_path": str(guest.bzimage),
        "initrd_path": str(guest.initrd),
        "boot_args": CMDLINE,
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


def _write(console: Console, times: Times) -> None:
    print("\n(typing into the guest: write a file and read it back)")
    with times.measure("a file written and read back in the guest"):
        at = console.length
        console.type(f"echo {TEXT} >{FILE}; sync; echo the file says: $(cat {FILE})")
        console.expect(f"the file says: {TEXT}", at)


def _pause(curl: Curl, console: Console, times: Times) -> None:
    with times.measure("pause"):
        curl("PATCH", "/vm", {"state": "Paused"})
    at = console.length
    console.type("echo still alive")
    time.sleep(STILL_S)  # nothing can tell that nothing comes
    if console.length != at:
        raise DemoError("a paused guest printed something")
    print(f"  (paused: a line was typed, and for {STILL_S:.0f} s the console is still)")
    state = json.loads(curl("GET", "/vmmd/state"))
    for vcpu in state["vcpus"]:
        print(f"  vCPU {vcpu['index']} is at {vcpu['registers']['rip']}")
    with times.measure("resume, and the line is answered"):
        curl("PATCH", "/vm", {"state": "Resumed"})
        console.expect("still alive\n", at)


def _wait_for(sock: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not sock.is_socket():
        if process.poll() is not None or time.monotonic() > end:
            raise DemoError("the API socket did not appear")
        time.sleep(0.005)
