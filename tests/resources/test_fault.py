"""One fault, two readers: the API's client and whoever wrote the config file."""

from __future__ import annotations

import pytest

from vmmd.resources.fault import ResourceFault, RustError


@pytest.mark.parametrize(
    ("area", "api", "file", "variant"),
    [
        ("balloon", "Balloon config error", "Balloon device error", "BalloonDevice"),
        ("boot", "Boot source error", "Boot source error", "BootSource"),
        ("drive", "Drive config error", "Block device error", "BlockDevice"),
        ("logger", "Logger error", "Logger error", "Logger"),
        ("machine", "Machine config error", "VM config error", "MachineConfig"),
        ("metrics", "Metrics error", "Metrics error", "Metrics"),
        ("mmds", "MMMDS config error", "MMDS config error", "MmdsConfig"),
        ("net", "Network config error", "Network device error", "NetDevice"),
        ("pmem", "Pmem config error", "Pmem device error", "PmemConfig"),
        ("vsock", "Vsock config error", "Vsock device error", "VsockDevice"),
        ("entropy", "Entropy config error", "Entropy device error", "EntropyConfig"),
    ],
)
def test_texts(area: str, api: str, file: str, variant: str) -> None:
    fault = ResourceFault(area, RustError("What happened.", "What"))
    assert str(fault) == f"{api}: What happened."
    assert fault.file_text == f"{file}: What happened."
    assert fault.debug == f"{variant}(What)"
    assert fault.status == 400
