"""The metadata service of a machine that runs, and of one that is restored."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.helpers.daemon import daemon
from tests.helpers.network import own_network
from tests.helpers.nic import needs_root
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.daemon import Daemon

NOT_INITIALIZED = {
    "fault_message": "MMDS error: The MMDS data store is not initialized."
}
CONFIG = {
    "version": "V2",
    "network_interfaces": ["b"],
    "ipv4_address": "169.254.7.8",
    "imds_compat": True,
}


def start(vmm: Daemon, folder: Path) -> None:
    kernel = folder / "kernel"
    kernel.write_bytes(kernel_image(b"\xfa\xf4\xeb\xfd"))  # cli; hlt
    vmm.api.ok("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 16})
    vmm.api.ok("PUT", "/boot-source", {"kernel_image_path": str(kernel)})
    vmm.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})


def shown(vmm: Daemon) -> object:
    config = vmm.api.ok("GET", "/vm/config")
    assert isinstance(config, dict)
    return config["mmds-config"]


def test_without_an_interface_for_it_there_is_none(tmp_path: Path) -> None:
    with daemon(tmp_path) as vmm:
        vmm.api.ok("PUT", "/mmds", {"a": 1})
        start(vmm, tmp_path)
        assert vmm.api.call("GET", "/mmds") == (400, NOT_INITIALIZED)
        assert vmm.api.call("PUT", "/mmds", {}) == (400, NOT_INITIALIZED)
        assert vmm.api.call("PATCH", "/mmds", {}) == (400, NOT_INITIALIZED)
        assert shown(vmm) is None


@needs_root
def test_a_restored_machine_has_the_service_and_not_the_data(tmp_path: Path) -> None:
    files = {
        "snapshot_path": str(tmp_path / "state"),
        "mem_file_path": str(tmp_path / "mem"),
    }
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    with own_network(), ExitStack() as stack:
        vmm = stack.enter_context(daemon(tmp_path / "0"))
        for name in ("a", "b"):
            body = {"iface_id": name, "host_dev_name": f"tap{name}"}
            vmm.api.ok("PUT", f"/network-interfaces/{name}", body)
        vmm.api.ok("PUT", "/mmds/config", CONFIG)
        vmm.api.ok("PUT", "/mmds", {"a": 1})
        start(vmm, tmp_path)
        assert shown(vmm) == CONFIG
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        vmm.api.ok("PUT", "/snapshot/create", files)
        assert vmm.api.ok("GET", "/mmds") == {"a": 1}
        vmm.close()
        vmm = stack.enter_context(daemon(tmp_path / "1"))
        backend = {"backend_path": files["mem_file_path"], "backend_type": "File"}
        load = {"snapshot_path": files["snapshot_path"], "mem_backend": backend}
        vmm.api.ok("PUT", "/snapshot/load", {**load, "resume_vm": True})
        assert shown(vmm) == CONFIG
        assert vmm.api.ok("GET", "/mmds") == {}
        vmm.api.ok("PUT", "/mmds", {"b": 2})
        assert vmm.api.ok("GET", "/mmds") == {"b": 2}
