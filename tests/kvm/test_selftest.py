"""The whole way through vmmd with a guest of a few instructions."""

from __future__ import annotations

import subprocess
import sys

from vmmd.loop import probe, selftest


async def test_the_guest_speaks_is_paused_and_resets() -> None:
    took = await selftest.run()
    assert min(took.start_ms, took.first_byte_ms, took.pause_ms, took.end_ms) > 0


def test_the_probe_times_level_0() -> None:
    cost_ns = probe.level0_ns_per_instruction()
    assert cost_ns is not None
    assert 0.01 < cost_ns < 100_000


def test_doctor_says_what_this_host_can_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmmd", "doctor", "--selftest"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = dict(line[9:].split(None, 1) for line in done.stdout.splitlines())
    assert "API version 12" in lines["/dev/kvm"]
    assert "a guest started in" in lines["self-test"]
