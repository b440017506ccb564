"""What a microVM's process costs while its guest does nothing, and its API.

Against processes that do nothing at all (the same interpreter, asleep) and an
API that answers 204 to whatever comes. Memory leaves the guest's own out.
"""

from __future__ import annotations

import functools
import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median, quantiles
from typing import TYPE_CHECKING

from bench.harness import Bench, build_twin
from tests.helpers.daemon import Daemon, daemon
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from collections.abc import Iterator


def request(method: str, target: str, body: object) -> bytes:
    """The bytes of a request."""
    text = json.dumps(body)
    head = f"{method} {target} HTTP/1.1\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


HALT = bytes.fromhex("fa f4 ebfc")  # cli; hlt; again
FLOOD = bytes.fromhex("66baf803 b056 ee ebfd")  # prints V for ever
MEM_SIZE_MIB = 64
VMS = 10
IDLE_S = 2
CALLS = 300
MACHINE = {"vcpu_count": 1, "mem_size_mib": MEM_SIZE_MIB}
CONNECT_DEADLINE_S = 30
ASLEEP = [sys.executable, "-I", "-c", "import time; time.sleep(1000)"]
GET = b"GET / HTTP/1.1\r\n\r\n"
PUT = request("PUT", "/machine-config", MACHINE)
RESUME = request("PATCH", "/vm", {"state": "Resumed"})


@contextmanager
def _idle_vms(count: int) -> Iterator[list[Daemon]]:
    """So many processes whose guests halt with interrupts off."""
    with ExitStack() as stack:
        vms = []
        for _ in range(count):
            vms.append(stack.enter_context(_process()))
            _start(vms[-1], HALT)
        time.sleep(0.5)  # what a start leaves to do is done by then
        yield vms


@contextmanager
def _process() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as name, daemon(Path(name)) as vm:
        yield vm


def _start(vm: Daemon, code: bytes) -> None:
    kernel = vm.folder / "kernel"
    kernel.write_bytes(kernel_image(code))
    vm.api.ok("PUT", "/machine-config", MACHINE)
    vm.api.ok("PUT", "/boot-source", {"kernel_image_path": str(kernel)})
    vm.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})


def _private_mib(pid: int) -> float:
    """Private memory of all mappings but those as large as the guest's."""
    private_kib = size_kib = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "Size":
            size_kib = int(rest.split()[0])
        elif name.startswith("Private_") and size_kib < MEM_SIZE_MIB << 10:
            private_kib += int(rest.split()[0])
    return private_kib / 1024


def _private_of_ten() -> float:
    with _idle_vms(VMS) as vms:
        return mean(_private_mib(vm.process.pid) for vm in vms)


def _private_asleep() -> float:
    with ExitStack() as stack:
        pids = []
        for _ in range(VMS):
            process = stack.enter_context(subprocess.Popen(ASLEEP))
            stack.callback(process.kill)
            pids.append(process.pid)
        time.sleep(0.5)  # they have slept for most of it
        return mean(map(_private_mib, pids))


def _switches(pid: int) -> int:
    """Context switches of all threads so far."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    lines = (line for task in tasks for line in task.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def _idle_switches() -> float:
    with _idle_vms(1) as (vm,):
        before = _switches(vm.process.pid)
        time.sleep(IDLE_S)
        return _switches(vm.process.pid) - before


def _put_us() -> float:
    with _process() as vm:
        return median(_calls_us(vm.sock, PUT))


def _answers_us() -> float:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "sock"
        with subprocess.Popen([_answers(), path]) as twin:
            try:
                return median(_calls_us(path, PUT))
            finally:
                twin.kill()


def _first_answer_ms() -> float:
    """From exec to the answer of GET /, asked as soon as the socket accepts."""
    began = time.perf_counter()
    with _process() as vm, socket.socket(socket.AF_UNIX) as client:
        connect(client, vm.sock, 0.0001)
        client.sendall(GET)
        client.recv(4096)
        return (time.perf_counter() - began) * 1e3


def _interpreter_ms() -> float:
    """An interpreter that has nothing to do."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1e3


def _flooded_p99_ms() -> float:
    """An action that changes nothing, while the guest fills the console."""
    with _process() as vm:
        _start(vm, FLOOD)
        return quantiles(_calls_us(vm.sock, RESUME), n=100)[98] / 1000


def _calls_us(path: Path, request: bytes) -> list[float]:
    """How long each of CALLS requests takes to its 204, on one connection."""
    took = []
    with socket.socket(socket.AF_UNIX) as client:
        connect(client, path)
        for _ in range(CALLS):
            began = time.perf_counter()
            client.sendall(request)
            answer = client.recv(4096)
            took.append((time.perf_counter() - began) * 1e6)
            if not answer.startswith(b"HTTP/1.1 204"):
                raise RuntimeError(f"refused: {answer!r}")
    return took


def connect(client: socket.socket, path: Path, pause_s: float = 0.01) -> None:
    """Connect as soon as somebody listens; between two trials it sleeps."""
    end = time.monotonic() + CONNECT_DEADLINE_S
    while client.connect_ex(str(path)):
        if time.monotonic() > end:
            raise RuntimeError(f"nobody listens at {path}")
        time.sleep(pause_s)


@functools.cache
def _answers() -> Path:
    return build_twin("answers.c")


BENCHES = (
    Bench("first_answer", "ms", _first_answer_ms, _interpreter_ms),
    Bench("put_p50", "us", _put_us, _answers_us),
    Bench("flooded_patch_p99", "ms", _flooded_p99_ms, limit=20),
    Bench("private_of_ten", "MiB", _private_of_ten, _private_asleep, limit=20),
    Bench("idle_switches", "", _idle_switches, limit=0),
)
