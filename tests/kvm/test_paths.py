"""Odd paths that a request names: refused with a reason, and nothing is lost."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import daemon
from tests.kvm.test_api import LOOP, started

if TYPE_CHECKING:
    from pathlib import Path

NUL = "file name contained an unexpected NUL byte"
BAD = "/tmp/a\0b"
BACKING = "Virtio backend error: Error manipulating the backing file: "
INITRD = "The initrd file cannot be opened due to invalid path or invalid permissions. "
FILE = {"backend_type": "File", "backend_path": BAD}
UFFD = {"backend_type": "Uffd", "backend_path": BAD}
LOAD = "Load snapshot error: Failed to restore from snapshot: "
MEMORY = f"{LOAD}Failed to load guest memory: Error creating guest memory from "


def drive(path: str) -> dict[str, object]:
    return {"drive_id": "d", "path_on_host": path, "is_root_device": False}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (
            "/metrics",
            {"metrics_path": BAD},
            "Metrics error: Cannot initialize the metrics system due to bad user "
            f"input: {NUL}",
        ),
        (
            "/logger",
            {"log_path": BAD},
            f"Logger error: Failed to open target file: {NUL}",
        ),
        (
            "/boot-source",
            {"kernel_image_path": BAD},
            f"Boot source error: The kernel file cannot be opened: {NUL}",
        ),
        (
            "/boot-source",
            {"kernel_image_path": "/dev/null", "initrd_path": BAD},
            f"Boot source error: {INITRD}{NUL}",
        ),
        (
            "/drives/d",
            drive(BAD),
            "Drive config error: Unable to create the virtio block device: "
            f"{BACKING}{NUL} {BAD}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value[0] == "/" else "",
)
def test_before_the_start(
    tmp_path: Path, path: str, body: dict[str, object], text: str
) -> None:
    with daemon(tmp_path) as vmm:
        refusal = (400, {"fault_message": text})
        assert vmm.api.call("PUT", path, body) == refusal
        started(vmm, LOOP)


def test_of_a_living_guest(tmp_path: Path) -> None:
    disk, state, memory = (tmp_path / name for name in ("d", "state", "memory"))
    disk.write_bytes(bytes(512))
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP, disk)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        patched = vmm.api.call(
            "PATCH", "/drives/d", {"drive_id": "d", "path_on_host": BAD}
        )
        assert patched == (
            400,
            {
                "fault_message": "Drive config error: Unable to patch the block device: "
                f"Block: {BACKING}{NUL} {BAD} Please verify the request arguments."
            },
        )
        for paths, what in (
            ((BAD, str(memory)), "snapshot"),
            ((str(state), BAD), "memory"),
        ):
            body = dict(zip(("snapshot_path", "mem_file_path"), paths, strict=True))
            text = f"Create snapshot error: Cannot perform open on the {what} backing "
            refusal = (400, {"fault_message": f"{text}file: {NUL}"})
            assert vmm.api.call("PUT", "/snapshot/create", body) == refusal
        whole = {"snapshot_path": str(state), "mem_file_path": str(memory)}
        vmm.api.ok("PUT", "/snapshot/create", whole)
    assert refused(tmp_path, BAD, FILE) == (
        f"{LOAD}Failed to get snapshot state from file: Failed to open snapshot file: "
        f"{NUL}"
    )
    assert refused(tmp_path, str(state), FILE) == (
        f"{MEMORY}file: Failed to load guest memory: {NUL}"
    )
    assert refused(tmp_path, str(state), UFFD) == (
        f"{MEMORY}uffd: Failed to connect to UDS Unix stream: "
        "paths must not contain interior null bytes"
    )


STATE = f"{LOAD}Failed to get snapshot state from file: Failed to load snapshot state "


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/dev/null", "IO Error: File too short to contain CRC"),
        ("/dev/zero", "Snapshot size exceeds limit of 10000000 bytes"),
        ("/proc/version", "An error occurred during bitcode serialization: bitcode "),
        ("/proc/self/mem", "IO Error: I/O error (os error 5)"),
    ],
)
def test_a_state_file_that_has_no_size(tmp_path: Path, path: str, text: str) -> None:
    assert refused(tmp_path, path, FILE).startswith(f"{STATE}from file: {text}")


def test_a_fifo_is_no_memory_file_and_holds_up_nothing(tmp_path: Path) -> None:
    state, fifo = tmp_path / "state", tmp_path / "fifo"
    os.mkfifo(fifo)
    with daemon(tmp_path) as vmm:
        started(vmm, LOOP)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        whole = {"snapshot_path": str(state), "mem_file_path": str(tmp_path / "m")}
        vmm.api.ok("PUT", "/snapshot/create", whole)
    text = refused(tmp_path, str(state), {**FILE, "backend_path": str(fifo)})
    assert text.startswith(f"{MEMORY}file: Failed to restore guest memory: ")


def test_a_nul_in_the_path_of_a_cpu_template(tmp_path: Path) -> None:
    config = {"boot-source": {"kernel_image_path": "/dev/null"}, "drives": []}
    (tmp_path / "c").write_text(json.dumps({**config, "cpu-config": BAD}))
    with daemon(tmp_path, "--config-file", "c") as vmm:
        assert vmm.wait() == 1
        assert NUL in vmm.stderr()
        assert "Traceback" not in vmm.stderr()


def refused(folder: Path, state: str, backend: dict[str, str]) -> str:
    """What a load says, which then ends the process as a failed load does."""
    (folder / "api.sock").unlink(missing_ok=True)
    with daemon(folder) as vmm:
        body = {"snapshot_path": state, "mem_backend": backend}
        status, answer = vmm.api.call("PUT", "/snapshot/load", body)
        assert status == 400
        assert isinstance(answer, dict)
        assert vmm.wait() == 1
        return str(answer["fault_message"])
