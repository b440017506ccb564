"""A stock Debian kernel finds all its processors, and the chips for what they are."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.guest import Monitor, cmdline

if TYPE_CHECKING:
    from pathlib import Path

    from lab.images import Images

FIRECRACKER = (
    "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
)
SCRIPT = """
echo ids $(grep '^apicid' /proc/cpuinfo | sed 's/.*: //')
echo names $(grep '^model name' /proc/cpuinfo | sed 's/.*: //' | sort -u)
for cpu in /sys/devices/system/cpu/cpu[0-9]*/topology; do
    echo "core $(cat $cpu/core_id) of package $(cat $cpu/physical_package_id)"
done | sort | uniq -c
dmesg | grep -iE 'ttyS0 at|smpboot|topology|firmware bug|mismatch|apic' | tail -30
"""


def boot(images: Images, tmp_path: Path, count: int, smt: bool) -> str:
    config = {
        "machine-config": {"vcpu_count": count, "mem_size_mib": 256, "smt": smt},
        "boot-source": {
            "kernel_image_path": str(images.cloud.bzimage),
            "initrd_path": str(images.cloud.initrd),
            "boot_args": cmdline("cpus,run,poweroff", script=SCRIPT),
        },
        "drives": [],
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-c", FIRECRACKER, "--no-api", "--config-file"]
    with Monitor([*command, str(path)]) as monitor:
        assert monitor.finish() == 0, monitor.output
    return monitor.output


@pytest.mark.parametrize(("count", "smt"), [(1, False), (2, False), (8, True)])
def test_all_processors_are_found_where_the_monitor_says(
    guest_images: Images, tmp_path: Path, count: int, smt: bool
) -> None:
    output = boot(guest_images, tmp_path, count, smt)
    print(output)
    assert f"VMMD-GUEST-CPUS {count}\n" in output
    assert f"ids {' '.join(str(i) for i in range(count))}\n" in output
    assert re.search(r"\nnames (AMD EPYC|Intel\(R\) Xeon\(R\) Processor)", output)
    cores = re.findall(r"^ *(\d+) core (\d+) of package (\d+)$", output, re.MULTILINE)
    threads = 2 if smt else 1
    assert sorted((int(n), int(core), int(p)) for n, core, p in cores) == [
        (threads, core, 0) for core in range(count // threads)
    ]
    assert "is a 16550A" in output
    assert "irmware bug" not in output
    assert "mismatch" not in output
