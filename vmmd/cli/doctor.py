"""``vmmd doctor``: what this host can do, and what to do about what is missing."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmmd.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEAST_MEMORY_MIB = 256

_MARKS = {True: "ok", False: "MISSING", None: "note"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``good`` None: fine without it, but worth knowing."""

    name: str
    good: bool | None
    text: str


def main(argv: Sequence[str]) -> int:
    """Print the findings; 1 if something that vmmd needs is missing."""
    parser = argparse.ArgumentParser(prog="vmmd doctor", description=__doc__)
    parser.add_argument(
        "--selftest",
        action="store_true",
        help="also run a small guest: exits, pause, resume, console, reset",
    )
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `vmmd doctor | head` just ends
    failed = False
    for finding in findings(selftest=arguments.selftest):
        print(f"{_MARKS[finding.good]:8} {finding.name:22} {finding.text}", flush=True)
        failed |= finding.good is False
    return int(failed)


def findings(*, selftest: bool) -> Iterator[Finding]:
    """Look at one thing after the other."""
    yield _host()
    kvm = list(_kvm())
    yield from kvm
    usable = all(finding.good is not False for finding in kvm)
    if usable:
        yield _level0()
    yield _memory()
    yield _tun()
    yield _userfaultfd()
    if selftest and usable:
        yield _selftest()


def _host() -> Finding:
    fits = sys.platform == "linux" and platform.machine() == "x86_64"
    text = f"{platform.system()} {platform.release()} on {platform.machine()}"
    return Finding("host", fits, text if fits else f"{text}: needs Linux on x86_64")


def _kvm() -> Iterator[Finding]:
    from vmmd.loop.kvm import Cap, Kvm

    try:
        kvm = Kvm.open()
    except HostError as error:
        yield Finding("/dev/kvm", False, str(error))
        return
    try:
        most = kvm.check_extension(Cap.MAX_VCPUS)
        yield Finding("/dev/kvm", True, f"API version 12, up to {most} vCPUs")
        tsc = bool(kvm.check_extension(Cap.TSC_CONTROL))
        text = "" if tsc else ": snapshots go only to hosts of the same frequency"
        yield Finding("TSC scaling", tsc or None, ("yes" if tsc else "no") + text)
    finally:
        kvm.close()


def _level0() -> Finding:
    from vmmd.loop.probe import NATIVE_NS, level0_ns_per_instruction

    cost_ns = level0_ns_per_instruction()
    if cost_ns is None:
        return Finding("kernel code", False, "the probe's guest did not run")
    text = f"{cost_ns:.1f} ns an instruction at privilege level 0"
    if cost_ns <= NATIVE_NS:
        return Finding("kernel code", True, text)
    return Finding(
        "kernel code",
        None,
        f"{text}: this KVM emulates it, so stock kernels do not boot in any useful "
        "time; small guests at level 3 run. For kernels use lab/run, or a host with "
        "hardware virtualisation",
    )


def _memory() -> Finding:
    mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") >> 20
    return Finding("free memory", mib >= LEAST_MEMORY_MIB, f"{mib} MiB")


def _tun() -> Finding:
    path = "/dev/net/tun"
    if not os.path.exists(path):
        text = f"no {path}: as root, modprobe tun; needed for network interfaces"
    elif not os.access(path, os.R_OK | os.W_OK):
        text = f"no access to {path}: as root, chmod 666 {path}, or use root's taps"
    else:
        return Finding("taps", True, path)
    return Finding("taps", None, text)


def _userfaultfd() -> Finding:
    knob = "/proc/sys/vm/unprivileged_userfaultfd"
    if os.geteuid() == 0 or os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        return Finding("userfaultfd", True, "usable")
    try:
        with open(knob, encoding="ascii") as file:
            allowed = file.read().strip() == "1"
    except OSError:
        allowed = False
    way = f"as root, sysctl -w vm.unprivileged_userfaultfd=1 ({knob})"
    return Finding("userfaultfd", allowed or None, "usable" if allowed else way)


def _selftest() -> Finding:
    import trio

    from vmmd.loop import selftest

    try:
        took = trio.run(selftest.run)
    except HostError as error:
        return Finding("self-test", False, str(error))
    return Finding(
        "self-test",
        True,
        f"a guest started in {took.start_ms:.1f} ms, spoke after "
        f"{took.first_byte_ms:.1f} ms, was paused in {took.pause_ms:.2f} ms, "
        f"answered and reset in {took.end_ms:.1f} ms",
    )
