"""Which action is legal when, as one table, and the text of each refusal."""

from __future__ import annotations

from enum import StrEnum

from . import actions as a


class Phase(StrEnum):
    """The states of a machine; the value is what ``GET /`` shows."""

    NOT_STARTED = "Not started"
    RUNNING = "Running"
    PAUSED = "Paused"


BEFORE = "The requested operation is not supported before starting the microVM."
AFTER = "The requested operation is not supported after starting the microVM."
NO_PCI = "PCI is not enabled"

_ANY = frozenset(Phase)
_PRE = frozenset({Phase.NOT_STARTED})
_POST = frozenset({Phase.RUNNING, Phase.PAUSED})

# Whether a snapshot may be made, which needs a paused machine, is not a matter
# of this table: the refusal stands behind other checks.
LEGAL: dict[type, frozenset[Phase]] = {
    a.GetInstanceInfo: _ANY,
    a.GetVersion: _ANY,
    a.GetState: _POST,
    a.GetSnapshotTargets: _POST,
    a.GetSnapshotProgress: _POST,
    a.GetMachineConfig: _ANY,
    a.GetVmConfig: _ANY,
    a.GetBalloon: _ANY,
    a.GetBalloonStatistics: _POST,
    a.GetHintingStatus: _POST,
    a.GetMmds: _ANY,
    a.GetMemoryHotplug: _POST,
    a.InstanceStart: _PRE,
    a.FlushMetrics: _POST,
    a.SendCtrlAltDel: _POST,
    a.PatchVm: _POST,
    a.PutMachineConfig: _PRE,
    a.PatchMachineConfig: _PRE,
    a.PutBootSource: _PRE,
    a.PutDrive: _PRE,
    a.PatchDrive: _POST,
    a.PutNetworkInterface: _PRE,
    a.PatchNetworkInterface: _POST,
    a.PutPmem: _PRE,
    a.PatchPmem: _POST,
    a.DeleteDevice: frozenset(),
    a.PutVsock: _PRE,
    a.PutBalloon: _PRE,
    a.PatchBalloon: _POST,
    a.PatchBalloonStatistics: _POST,
    a.StartHinting: _POST,
    a.StopHinting: _POST,
    a.PutEntropy: _PRE,
    a.PutCpuConfig: _PRE,
    a.PutSerial: _PRE,
    a.PutMemoryHotplug: _PRE,
    a.PatchMemoryHotplug: _POST,
    a.PutLogger: _PRE,
    a.PutMetrics: _PRE,
    a.PutMmds: _ANY,
    a.PatchMmds: _ANY,
    a.PutMmdsConfig: _PRE,
    a.CreateSnapshot: _POST,
    a.LoadSnapshot: _PRE,
}

# Hotplug goes over PCI, which no machine of this release has.
_NEEDS_PCI = frozenset({a.PutDrive, a.PutPmem, a.PutNetworkInterface, a.DeleteDevice})

# After one of these, whether it succeeded or not, no snapshot may be loaded.
BOOT_PATH: frozenset[type] = frozenset(
    {
        a.PutMachineConfig,
        a.PatchMachineConfig,
        a.PutBootSource,
        a.PutDrive,
        a.PutNetworkInterface,
        a.PutPmem,
        a.PutVsock,
        a.PutBalloon,
        a.PutEntropy,
        a.PutMemoryHotplug,
        a.PutMmdsConfig,
    }
)

# Parsed and placed, but without a device or service behind them yet.
NOT_BUILT: dict[type, str] = {
    a.GetBalloon: "The balloon device",
    a.GetBalloonStatistics: "The balloon device",
    a.GetHintingStatus: "The balloon device",
    a.PutBalloon: "The balloon device",
    a.PatchBalloon: "The balloon device",
    a.PatchBalloonStatistics: "The balloon device",
    a.StartHinting: "The balloon device",
    a.StopHinting: "The balloon device",
    a.GetMemoryHotplug: "Memory hotplug",
    a.PutMemoryHotplug: "Memory hotplug",
    a.PatchMemoryHotplug: "Memory hotplug",
    a.PutPmem: "The pmem device",
    a.PatchPmem: "The pmem device",
    a.PutVsock: "The vsock device",
    a.PutEntropy: "The entropy device",
    a.PutCpuConfig: "The custom CPU template",
    a.PutSerial: "The serial console's output file",
}


def refusal(phase: Phase, action: a.Action) -> str | None:
    """Why an action may not be done in this phase, or None if it may.

    Says nothing of the action's own contents.
    """
    kind = type(action)
    if phase in LEGAL[kind]:
        return not_built(action)
    if phase is Phase.NOT_STARTED:
        return BEFORE
    return NO_PCI if kind in _NEEDS_PCI else AFTER


def not_built(action: a.Action) -> str | None:
    """The refusal of what this release parses but cannot do, or None."""
    what = NOT_BUILT.get(type(action))
    return None if what is None else f"{what} is not built yet in this vmmd."
