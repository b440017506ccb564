"""Steps of configuration, one after another."""

from __future__ import annotations

import pytest

from tests.helpers.opener import Host
from vmmd import actions as a
from vmmd import config as c
from vmmd import templates as t
from vmmd.resources.fault import ResourceFault
from vmmd.resources.store import VmResources, apply, dropped

BUCKET = c.TokenBucketConfig(1, None, 1)
ZERO = c.TokenBucketConfig(0, None, 0)


def drive(name: str, path: str = "disk.img") -> a.PutDrive:
    """A step that names a drive."""
    return a.PutDrive(c.DriveConfig(name, None, False, path_on_host=path))


def test_steps_add_up() -> None:
    host = Host()
    now = VmResources()
    for step in (
        a.PutMachineConfig(c.MachineConfig(2, 256)),
        a.PatchMachineConfig(c.MachineConfigUpdate(smt=True)),
        a.PutBootSource(c.BootSourceConfig("vmlinux", "initrd")),
        drive("d"),
        a.PutBalloon(c.BalloonConfig(1, True)),
        a.PutEntropy(c.EntropyConfig(c.RateLimiterConfig(BUCKET, ZERO))),
        a.PutPmem(c.PmemConfig("p", "f", rate_limiter=c.RateLimiterConfig(ZERO, None))),
        a.PutMemoryHotplug(c.MemoryHotplugConfig(128)),
        a.PutSerial(c.SerialConfig("out")),
    ):
        now = apply(now, step, host.open)
    assert now.machine == c.MachineConfig(2, 256, smt=True)
    assert now.boot is not None
    assert [one.config.drive_id for one in now.drives] == ["d"]
    assert now.balloon == c.BalloonConfig(1, True)
    assert now.entropy == c.EntropyConfig(c.RateLimiterConfig(BUCKET, None))
    assert now.pmem[0].rate_limiter == c.RateLimiterConfig(ZERO, None)
    assert now.memory_hotplug == c.MemoryHotplugConfig(128)
    assert now.serial.serial_out_path == "out"
    assert now.files() == tuple(host.opened)
    template = apply(now, a.PutCpuConfig(t.CustomCpuTemplate()), host.open)
    assert template.machine.cpu_template == t.CustomCpuTemplate()


def test_a_refused_step_changes_nothing() -> None:
    host = Host()
    now = apply(VmResources(), drive("d"), host.open)
    with pytest.raises(ResourceFault):
        apply(now, drive("d", "gone"), host.open)
    assert [one.config.path_on_host for one in now.drives] == ["disk.img"]
    assert host.held() == ["disk.img"]


def test_files_that_are_not_needed_any_more() -> None:
    host = Host()
    boot = a.PutBootSource(c.BootSourceConfig("vmlinux", "initrd"))
    before = apply(apply(VmResources(), boot, host.open), drive("d"), host.open)
    same = apply(before, a.PutBalloon(c.BalloonConfig(1, True)), host.open)
    assert dropped(before, same) == ()
    other = apply(before, drive("d", "two.img"), host.open)
    assert dropped(before, other) == (before.drives[0].file,)
    again = apply(before, boot, host.open)
    assert dropped(before, again) == tuple(host.opened[:2])


def test_the_machine_and_the_balloon_look_at_each_other() -> None:
    now = apply(VmResources(), a.PutBalloon(c.BalloonConfig(128, True)), Host().open)
    with pytest.raises(ResourceFault, match="balloon device target size"):
        apply(now, a.PutMachineConfig(c.MachineConfig(1, 127)), Host().open)
    with pytest.raises(ResourceFault, match="too large"):
        apply(now, a.PutBalloon(c.BalloonConfig(129, True)), Host().open)


def test_the_roots_look_at_each_other() -> None:
    root = a.PutDrive(c.DriveConfig("d", None, True, path_on_host="disk.img"))
    pmem = a.PutPmem(c.PmemConfig("p", "f", root_device=True))
    host = Host()
    with pytest.raises(ResourceFault, match="defined as a block device"):
        apply(apply(VmResources(), root, host.open), pmem, host.open)
    with pytest.raises(ResourceFault, match="defined as a pmem device"):
        apply(apply(VmResources(), pmem, host.open), root, host.open)


def test_what_configures_nothing() -> None:
    with pytest.raises(TypeError):
        apply(VmResources(), a.GetVersion(), Host().open)
