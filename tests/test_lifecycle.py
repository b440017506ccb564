"""The table of lifecycle.py: every phase with every action."""

from __future__ import annotations

import typing

import pytest

from vmmd import actions as a
from vmmd import config as c
from vmmd import templates as t
from vmmd.lifecycle import (
    AFTER,
    BEFORE,
    BOOT_PATH,
    LEGAL,
    NO_PCI,
    NOT_BUILT,
    Phase,
    refusal,
)

KINDS = typing.get_args(a.Action)
RUNTIME_ONLY = (
    a.GetBalloonStatistics(),
    a.GetHintingStatus(),
    a.GetMemoryHotplug(),
    a.FlushMetrics(),
    a.SendCtrlAltDel(),
    a.PatchVm(c.VmStateChange.PAUSED),
    a.PatchDrive(c.DriveUpdate("d")),
    a.PatchNetworkInterface(c.NetworkInterfaceUpdate("n")),
    a.PatchPmem(c.PmemUpdate("p")),
    a.DeleteDevice(a.DeviceKind.DRIVE, "d"),
    a.PatchBalloon(c.BalloonUpdate(1)),
    a.PatchBalloonStatistics(c.BalloonStatsUpdate(1)),
    a.StartHinting(c.HintingStart()),
    a.StopHinting(),
    a.PatchMemoryHotplug(c.MemoryHotplugUpdate(2)),
)
BEFORE_ONLY = (
    a.InstanceStart(),
    a.PutMachineConfig(c.MachineConfig()),
    a.PatchMachineConfig(c.MachineConfigUpdate(1)),
    a.PutBootSource(c.BootSourceConfig("k")),
    a.PutVsock(c.VsockConfig(None, 3, "v")),
    a.PutBalloon(c.BalloonConfig(1, True)),
    a.PutEntropy(c.EntropyConfig()),
    a.PutCpuConfig(t.CustomCpuTemplate()),
    a.PutSerial(c.SerialConfig()),
    a.PutMemoryHotplug(c.MemoryHotplugConfig(128)),
    a.PutLogger(c.LoggerConfig()),
    a.PutMetrics(c.MetricsConfig("m")),
)
PLUGGED = (
    a.PutDrive(c.DriveConfig("d", None, False)),
    a.PutNetworkInterface(c.NetworkInterfaceConfig("n", "tap0")),
    a.PutPmem(c.PmemConfig("p", "f")),
)
ALWAYS = (
    a.GetInstanceInfo(),
    a.GetVersion(),
    a.GetMachineConfig(),
    a.GetVmConfig(),
    a.GetBalloon(),
    a.GetMmds(),
    a.PutMmds(None),
    a.PatchMmds(None),
)


def legal_text(action: a.Action) -> str | None:
    """What is said where the phase does not forbid an action."""
    what = NOT_BUILT.get(type(action))
    return what and f"{what} is not built yet in this vmmd."


def test_every_action_has_its_place_in_the_table() -> None:
    assert set(LEGAL) == set(KINDS)
    assert set(NOT_BUILT) <= set(KINDS)
    assert set(KINDS) >= BOOT_PATH


def test_reads_are_the_gets() -> None:
    assert {kind for kind in KINDS if kind.__name__.startswith("Get")} == a.READS


@pytest.mark.parametrize("action", RUNTIME_ONLY, ids=lambda x: type(x).__name__)
def test_what_needs_a_started_machine(action: a.Action) -> None:
    assert refusal(Phase.NOT_STARTED, action) == BEFORE
    after = NO_PCI if isinstance(action, a.DeleteDevice) else legal_text(action)
    assert refusal(Phase.RUNNING, action) == after
    assert refusal(Phase.PAUSED, action) == after


@pytest.mark.parametrize("action", BEFORE_ONLY, ids=lambda x: type(x).__name__)
def test_what_a_started_machine_refuses(action: a.Action) -> None:
    assert refusal(Phase.NOT_STARTED, action) == legal_text(action)
    assert refusal(Phase.RUNNING, action) == AFTER
    assert refusal(Phase.PAUSED, action) == AFTER


@pytest.mark.parametrize("action", PLUGGED, ids=lambda x: type(x).__name__)
def test_devices_cannot_be_plugged_without_pci(action: a.Action) -> None:
    assert refusal(Phase.NOT_STARTED, action) == legal_text(action)
    assert refusal(Phase.RUNNING, action) == NO_PCI
    assert refusal(Phase.PAUSED, action) == NO_PCI


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("action", ALWAYS, ids=lambda x: type(x).__name__)
def test_what_no_phase_forbids(phase: Phase, action: a.Action) -> None:
    assert refusal(phase, action) == legal_text(action)


def test_the_texts() -> None:
    assert BEFORE == (
        "The requested operation is not supported before starting the microVM."
    )
    assert AFTER == (
        "The requested operation is not supported after starting the microVM."
    )
    assert [phase.value for phase in Phase] == ["Not started", "Running", "Paused"]
