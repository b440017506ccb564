"""Snapshots over the API: a guest goes on in process after process."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import Daemon, daemon
from tests.helpers.network import own_network
from tests.helpers.poll import until
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from pathlib import Path

    from vmmd.actions import JsonValue

# Prints the alphabet, over and over, a letter every some milliseconds. The letter
# is in memory, at 2 MiB.
LETTERS = bytes.fromhex(
    "66baf803 c604250000200061 8a042500002000 ee fe042500002000 b9204e0000 ffc9 75fc"
    "803c25000020007b 75de c604250000200061 ebd4"
)
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
LOAD_FAILED = (
    "RunWithApiError error: Failed to build MicroVM: Loading snapshot failed.."
)
MEM_MIB = 64


def process(stack: ExitStack, folder: Path) -> Daemon:
    folder.mkdir()
    return stack.enter_context(daemon(folder))


def booted(
    stack: ExitStack, folder: Path, *, track: bool = False, drive: Path | None = None
) -> Daemon:
    vmm = process(stack, folder)
    kernel = folder / "kernel"
    kernel.write_bytes(kernel_image(LETTERS))
    machine = {"vcpu_count": 1, "mem_size_mib": MEM_MIB, "track_dirty_pages": track}
    vmm.api.ok("PUT", "/machine-config", machine)
    vmm.api.ok("PUT", "/boot-source", {"kernel_image_path": str(kernel)})
    if drive is not None:
        body = {
            "drive_id": "root",
            "path_on_host": str(drive),
            "is_root_device": True,
            "is_read_only": False,
        }
        vmm.api.ok("PUT", "/drives/root", body)
    vmm.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})
    until(lambda: "c" in printed(vmm))
    return vmm


def create(vmm: Daemon, folder: Path, name: str, kind: str = "Full") -> None:
    vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
    vmm.api.ok("PUT", "/snapshot/create", body_of(folder, name, kind))


def body_of(folder: Path, name: str, kind: str = "Full") -> dict[str, str]:
    return {
        "snapshot_path": str(folder / f"{name}.state"),
        "mem_file_path": str(folder / f"{name}.mem"),
        "snapshot_type": kind,
    }


def load(vmm: Daemon, state: Path, memory: Path, **more: JsonValue) -> None:
    vmm.api.ok("PUT", "/snapshot/load", load_body(state, memory) | more)


def load_body(state: Path, memory: Path) -> dict[str, JsonValue]:
    return {
        "snapshot_path": str(state),
        "mem_backend": {"backend_path": str(memory), "backend_type": "File"},
    }


def printed(vmm: Daemon) -> str:
    """What the guest wrote: letters that are no part of the log's lines."""
    return re.sub(r"\d{4}-\d\d-\d\dT[^\n]*\n", "", vmm.stdout())


def goes_on(vmm: Daemon) -> None:
    """Wait for some more letters."""
    before = len(printed(vmm))
    until(lambda: len(printed(vmm)) > before + 3)


def assert_alphabet(text: str) -> None:
    assert text
    first = ALPHABET.index(text[0])
    assert text == (ALPHABET * (len(text) // 26 + 2))[first : first + len(text)]


def test_a_guest_goes_on_where_it_was_five_times_over(tmp_path: Path) -> None:
    said = ""
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        for round_ in range(1, 6):
            name = f"s{round_}"
            create(vmm, tmp_path, name)
            said += printed(vmm)
            vmm.close()
            vmm = process(stack, tmp_path / str(round_))
            load(vmm, tmp_path / f"{name}.state", tmp_path / f"{name}.mem")
            assert state(vmm) == "Paused"
            vmm.api.ok("PATCH", "/vm", {"state": "Resumed"})
            goes_on(vmm)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        said += printed(vmm)
    assert_alphabet(said)


def state(vmm: Daemon) -> object:
    info = vmm.api.ok("GET", "/")
    assert isinstance(info, dict)
    return info["state"]


def registers(vmm: Daemon) -> object:
    shown = vmm.api.ok("GET", "/vmmd/state")
    assert isinstance(shown, dict)
    vcpus = shown["vcpus"]
    assert isinstance(vcpus, list)
    assert isinstance(vcpus[0], dict)
    return vcpus[0]["registers"]


def test_registers_and_configuration_come_back(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", drive=disk)
        create(first, tmp_path, "s")
        second = process(stack, tmp_path / "1")
        load(second, tmp_path / "s.state", tmp_path / "s.mem")
        assert registers(second) == registers(first)
        for path in ("/vm/config", "/machine-config", "/"):
            assert second.api.ok("GET", path) == first.api.ok("GET", path)


def test_clones_run_beside_each_other_from_one_snapshot(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0")
        create(first, tmp_path, "s")
        before = (tmp_path / "s.mem").read_bytes()
        clones = [process(stack, tmp_path / f"c{i}") for i in range(3)]
        for clone in clones:
            load(clone, tmp_path / "s.state", tmp_path / "s.mem", resume_vm=True)
        for clone in clones:
            goes_on(clone)
            assert_alphabet(printed(first)[-1:] + printed(clone))
        assert (tmp_path / "s.mem").read_bytes() == before


def test_diffs_merge_into_the_file_that_they_are_relative_to(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", track=True)
        create(first, tmp_path, "s")
        for _ in range(2):
            first.api.ok("PATCH", "/vm", {"state": "Resumed"})
            goes_on(first)
            create(first, tmp_path, "s", "Diff")
        said = printed(first)
        second = process(stack, tmp_path / "1")
        load(second, tmp_path / "s.state", tmp_path / "s.mem", resume_vm=True)
        goes_on(second)
        assert_alphabet(said + printed(second))


def test_a_diff_alone_is_sparse_and_is_not_loaded_without_its_parent(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", track=True)
        create(first, tmp_path, "base")
        first.api.ok("PATCH", "/vm", {"state": "Resumed"})
        goes_on(first)
        create(first, tmp_path, "diff", "Diff")
        held = os.stat(tmp_path / "diff.mem")
        assert held.st_size == MEM_MIB << 20
        assert held.st_blocks * 512 < 1 << 20
        for memory, text in (("diff", "pages of a Diff"), ("base", "have the pages")):
            vmm = process(stack, tmp_path / memory)
            body = load_body(tmp_path / "diff.state", tmp_path / f"{memory}.mem")
            status, answer = vmm.api.call("PUT", "/snapshot/load", body)
            assert status == 400
            assert text in str(answer)
            assert "rebase" in str(answer)
            assert vmm.wait() == 1


@pytest.mark.parametrize("diffs", [1, 2])
def test_merged_by_a_tool_that_knows_no_ids_it_loads(
    tmp_path: Path, diffs: int
) -> None:
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", track=True)
        create(first, tmp_path, "base")
        for number in range(diffs):
            first.api.ok("PATCH", "/vm", {"state": "Resumed"})
            goes_on(first)
            create(first, tmp_path, f"diff{number}", "Diff")
        for number in range(diffs):
            copy_data(tmp_path / f"diff{number}.mem", tmp_path / "base.mem")
        second = process(stack, tmp_path / "1")
        state_file = tmp_path / f"diff{diffs - 1}.state"
        load(second, state_file, tmp_path / "base.mem", resume_vm=True)
        goes_on(second)
        assert_alphabet(printed(first) + printed(second))
        assert ("taken for a chain" in second.stdout()) == (diffs > 1)


def copy_data(source: Path, target: Path) -> None:
    """Firecracker's way to rebase: copy the data extents to the same place."""
    with source.open("rb") as diff, target.open("r+b") as base:
        end, at = os.fstat(diff.fileno()).st_size, 0
        while at < end:
            try:
                start = os.lseek(diff.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            at = os.lseek(diff.fileno(), start, os.SEEK_HOLE)
            os.pwrite(base.fileno(), os.pread(diff.fileno(), at - start, start), start)


def test_writing_over_the_files_that_it_was_loaded_from(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        create(vmm, tmp_path, "s")
        said = printed(vmm)
        for round_ in (1, 2):
            vmm = process(stack, tmp_path / str(round_))
            load(vmm, tmp_path / "s.state", tmp_path / "s.mem", resume_vm=True)
            goes_on(vmm)
            create(vmm, tmp_path, "s")
            said += printed(vmm)
            vmm.api.ok("PATCH", "/vm", {"state": "Resumed"})
            goes_on(vmm)
    assert_alphabet(said)


def test_another_file_for_a_drive(tmp_path: Path) -> None:
    disk, moved = tmp_path / "disk", tmp_path / "moved"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", drive=disk)
        create(first, tmp_path, "s")
        shutil.move(disk, moved)
        second = process(stack, tmp_path / "1")
        body = load_body(tmp_path / "s.state", tmp_path / "s.mem")
        override = {"drive_id": "root", "path_on_host": str(moved)}
        second.api.ok(
            "PUT", "/vmmd/snapshot/load", body | {"drive_overrides": [override]}
        )
        shown = second.api.ok("GET", "/vm/config")
        assert isinstance(shown, dict)
        assert str(moved) in str(shown["drives"])
        third = process(stack, tmp_path / "2")
        override["drive_id"] = "rot"
        status, answer = third.api.call(
            "PUT", "/vmmd/snapshot/load", body | {"drive_overrides": [override]}
        )
        assert status == 400
        assert "no drive 'rot' in the snapshot; its drives: root" in str(answer)


def refused(stack: ExitStack, folder: Path, state: Path, memory: Path) -> str:
    """What a load that fails answers; the process ends by itself then."""
    vmm = process(stack, folder)
    status, answer = vmm.api.call("PUT", "/snapshot/load", load_body(state, memory))
    assert status == 400
    assert isinstance(answer, dict)
    assert vmm.wait() == 1
    assert LOAD_FAILED in vmm.stdout()
    assert vmm.stderr().startswith("Error: RunWithApi(BuildMicroVmError(Restore))")
    return str(answer["fault_message"])


BITCODE = "An error occurred during bitcode serialization: bitcode error"
UNLOADABLE = [  # the state file, the memory file, what the answer says
    ("none", "s.mem", "Failed to open snapshot file: No such"),
    (".", "s.mem", "Failed to load snapshot state from file: IO Error: Is a directory"),
    ("disk", "s.mem", BITCODE),
    ("cut", "s.mem", BITCODE),
    ("flipped", "s.mem", "CRC64 validation failed"),
    ("s.state", "none", "load guest memory: No such file"),
    ("s.state", "short", "exceeds largest possible file offset"),
    ("s.state", "other.mem", "is of snapshot"),
]


def damage(folder: Path) -> None:
    """Make damaged copies of "s.state" and "s.mem" beside them."""
    good = (folder / "s.state").read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    (folder / "flipped").write_bytes(flipped)
    (folder / "cut").write_bytes(good[:-100])
    (folder / "short").write_bytes((folder / "s.mem").read_bytes()[:-4096])


def test_what_cannot_be_loaded_ends_the_process_with_a_reason(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", drive=disk)
        create(first, tmp_path, "s")
        create(first, tmp_path, "other")
        damage(tmp_path)
        for number, (state, memory, text) in enumerate(UNLOADABLE):
            files = (tmp_path / state, tmp_path / memory)
            message = refused(stack, tmp_path / f"p-{number}", *files)
            assert message.startswith(
                "Load snapshot error: Failed to restore from snapshot: "
            )
            assert text in message
        disk.unlink()
        files = (tmp_path / "s.state", tmp_path / "s.mem")
        message = refused(stack, tmp_path / "disk-gone", *files)
        assert message.endswith(f"No such file or directory (os error 2) {disk}")


def test_no_load_after_a_step_of_configuration(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = process(stack, tmp_path / "0")
        missing = {"kernel_image_path": str(tmp_path / "none")}
        assert vmm.api.call("PUT", "/boot-source", missing)[0] == 400
        body = load_body(tmp_path / "s", tmp_path / "m")
        assert vmm.api.call("PUT", "/snapshot/load", body) == (
            400,
            {
                "fault_message": "Load snapshot error: Loading a microVM snapshot not"
                " allowed after configuring boot-specific resources."
            },
        )
        assert state(vmm) == "Not started"


@pytest.mark.parametrize("name", ["no/x", "", "folder"])
def test_a_path_that_cannot_be_written_changes_nothing(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        before = sorted(tmp_path.iterdir())
        bad = str(tmp_path / name) if name else ""
        good = body_of(tmp_path, "s")
        for field, what in (("snapshot_path", "snapshot"), ("mem_file_path", "memory")):
            body = good | {field: bad}
            status, answer = vmm.api.call("PUT", "/snapshot/create", body)
            assert status == 400
            prefix = "Create snapshot error: Cannot perform open on the "
            assert f"{prefix}{what} backing file: " in str(answer)
        assert sorted(tmp_path.iterdir()) == before
        vmm.api.ok("PATCH", "/vm", {"state": "Resumed"})
        goes_on(vmm)


def test_not_over_a_drive_that_is_in_use(tmp_path: Path) -> None:
    disk = tmp_path / "s.mem"
    disk.write_bytes(b"precious" * 512)
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0", drive=disk)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        status, answer = vmm.api.call("PUT", "/snapshot/create", body_of(tmp_path, "s"))
        assert status == 400
        assert "is the file of drive root" in str(answer)
        assert disk.read_bytes() == b"precious" * 512


def test_a_running_guest_is_not_saved(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        assert vmm.api.call("PUT", "/snapshot/create", body_of(tmp_path, "s")) == (
            400,
            {
                "fault_message": "Create snapshot error: Cannot save the microVM state:"
                " Operation not allowed: save/restore unavailable while running"
            },
        )
        assert not (tmp_path / "s.state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")
def test_an_interface_and_its_metadata_service_on_another_tap(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(own_network())
        first = process(stack, tmp_path / "0")
        kernel = tmp_path / "kernel"
        kernel.write_bytes(kernel_image(LETTERS))
        first.api.ok("PUT", "/boot-source", {"kernel_image_path": str(kernel)})
        interface = {"iface_id": "eth0", "host_dev_name": "t0", "mtu": 1400}
        limits = {"rx_rate_limiter": {"ops": {"size": 10, "refill_time": 100}}}
        first.api.ok("PUT", "/network-interfaces/eth0", interface | limits)
        service = {"network_interfaces": ["eth0"], "version": "V2", "imds_compat": True}
        first.api.ok("PUT", "/mmds/config", service | {"ipv4_address": "169.254.1.1"})
        first.api.ok("PUT", "/actions", {"action_type": "InstanceStart"})
        create(first, tmp_path, "s")
        before = first.api.ok("GET", "/vm/config")
        assert isinstance(before, dict)
        body = load_body(tmp_path / "s.state", tmp_path / "s.mem")
        body["network_overrides"] = [{"iface_id": "eth0", "host_dev_name": "t1"}]
        second = process(stack, tmp_path / "1")
        second.api.ok("PUT", "/snapshot/load", body)
        after = second.api.ok("GET", "/vm/config")
        assert str(after) == str(before).replace("'t0'", "'t1'")
        second.api.ok("PUT", "/mmds", {"a": "b"})
        assert second.api.ok("GET", "/mmds") == {"a": "b"}
        third = process(stack, tmp_path / "2")
        body["network_overrides"] = [{"iface_id": "eth1", "host_dev_name": "t2"}]
        status, answer = third.api.call("PUT", "/snapshot/load", body)
        assert status == 400
        assert "Unknown Network Device." in str(answer)
        message = refused(
            stack, tmp_path / "3", tmp_path / "s.state", tmp_path / "s.mem"
        )  # t0 is held by the first
        assert (
            "restoring MMIO devices: Net: Failed to create a network device: Open "
            in (message)
        )
