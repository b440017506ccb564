"""``vmmd snapshot`` and ``vmmd run --restore`` with real guests."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.helpers.commands import VMMD, environment, vmmd
from tests.helpers.poll import until
from tests.helpers.unix_api import UnixApi
from tests.kvm.test_snapshot import (
    ALPHABET,
    assert_alphabet,
    booted,
    goes_on,
    process,
    registers,
    state,
)
from vmmd.client import Client
from vmmd.state.versions import RELEASES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Restored:
    """A `vmmd run` process; its console is in a file."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._out = folder / "console"
        with self._out.open("wb") as out, (folder / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [*VMMD, "run", *map(str, arguments)],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )

    def printed(self) -> str:
        """What the guest wrote."""
        return self._out.read_text()


@contextmanager
def restored(folder: Path, *arguments: object) -> Iterator[Restored]:
    folder.mkdir()
    running = Restored(folder, *arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_a_running_guest_is_saved_goes_on_and_is_restored(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        done = vmmd("snapshot", "create", vmm.sock, tmp_path / "new" / "s")
        assert "full snapshot in" in done.stdout
        assert state(vmm) == "Running"
        goes_on(vmm)
        clone = stack.enter_context(
            restored(tmp_path / "1", "--restore", tmp_path / "new" / "s")
        )
        until(lambda: len(clone.printed()) > 30)
        text = clone.printed()
        assert_alphabet(text)
        assert text[0] in ALPHABET


def test_a_paused_guest_stays_paused(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        vmmd("snapshot", "create", vmm.sock, tmp_path / "s")
        assert state(vmm) == "Paused"


def test_a_create_that_fails_leaves_the_guest_running(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        done = vmmd(
            "snapshot", "create", vmm.sock, tmp_path, "--target", "9.9.9", code=2
        )
        assert "Cannot translate microVM version" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert state(vmm) == "Running"


def test_restored_with_another_disk_paused_until_it_is_told(tmp_path: Path) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0", drive=disk)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        vmmd("snapshot", "create", vmm.sock, tmp_path / "s")
        disk.rename(copy)
        sock = tmp_path / "api"
        arguments = ("--restore", tmp_path / "s", "--no-resume", "--api-sock", sock)
        stack.enter_context(
            restored(tmp_path / "1", *arguments, "--drive", f"root={copy}")
        )
        api = UnixApi(sock)
        stack.callback(api.close)
        shown = api.ok("GET", "/vm/config")
        assert isinstance(shown, dict)
        assert shown["drives"][0]["path_on_host"] == str(copy)
        assert api.ok("GET", "/vmmd/state")["vcpus"][0]["registers"] == registers(vmm)  # type: ignore[index]  # JSON


def test_what_cannot_be_restored_is_one_line(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        vmmd("snapshot", "create", vmm.sock, tmp_path / "s")
    (tmp_path / "s" / "vm.mem").write_bytes(b"")
    for arguments, code, text in (
        (("--restore", tmp_path / "s"), 1, "largest possible file offset"),
        (("--restore", tmp_path / "none"), 1, "vm.state: there is no such file"),
        (("--restore", tmp_path / "s", "--drive", "x"), 2, "give ID=PATH"),
        (("--restore", tmp_path / "s", "--no-resume"), 2, "give --api-sock"),
        (("--kernel", "k", "--tap", "a=b"), 2, "are of --restore"),
    ):
        done = vmmd("run", *arguments, code=code)
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_diffs_are_merged_and_the_whole_goes_on(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0", track=True)
        for name in ("base", "1st", "2nd"):
            diff = () if name == "base" else ("--diff",)
            vmmd("snapshot", "create", vmm.sock, tmp_path / name, *diff)
            goes_on(vmm)
        folders = [tmp_path / name for name in ("base", "1st", "2nd")]
        done = vmmd("snapshot", "rebase", folders[0], folders[2], code=2)
        assert "none left out" in done.stderr
        assert "2 diffs merged" in vmmd("snapshot", "rebase", *folders).stdout
        assert "has all" in vmmd("snapshot", "rebase", *folders).stdout
        for folder in folders:
            vmmd("snapshot", "verify", folder)
        clone = stack.enter_context(
            restored(tmp_path / "1", "--restore", tmp_path / "base")
        )
        until(lambda: len(clone.printed()) > 30)
        assert_alphabet(clone.printed())


def test_targets_of_a_running_guest_which_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0", drive=disk)
        before = os.listdir(tmp_path)
        with Client(vmm.sock) as client:
            targets = client.get("/vmmd/snapshot/targets")["targets"]
        assert isinstance(targets, list)
        found = {t["version"]: t for t in targets if isinstance(t, dict)}
        assert [*found] == [*reversed(RELEASES)]
        assert found[RELEASES[-1]]["losses"] == []
        assert "SMT" in str(found["1.1.0"]["losses"])
        assert {str(target["refusal"]) for target in found.values()} == {"None"}
        assert os.listdir(tmp_path) == before
        assert state(vmm) == "Running"
        goes_on(vmm)
        shown = vmmd("snapshot", "targets", vmm.sock).stdout
        assert "1.16.0    yes\n" in shown
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        vmm.api.ok("GET", "/vmmd/snapshot/targets")
        assert state(vmm) == "Paused"


def test_before_the_start_there_are_no_targets(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = process(stack, tmp_path / "0")
        vmm.api.ok("GET", "/")
        done = vmmd("snapshot", "targets", vmm.sock, code=2)
        assert "before starting the microVM" in done.stderr
        done = vmmd("snapshot", "create", vmm.sock, tmp_path / "s", code=2)
        assert "is not started yet" in done.stderr
        assert not (tmp_path / "s").exists()


def test_progress_when_nothing_is_written(tmp_path: Path) -> None:
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0")
        shown = vmm.api.ok("GET", "/vmmd/snapshot/progress")
        assert shown == {"active": False, "done_bytes": 0, "size_bytes": 0}


def test_a_target_that_is_refused_says_what_a_create_would(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        vmm = booted(stack, tmp_path / "0", drive=disk)
        vmm.api.ok("PATCH", "/vm", {"state": "Paused"})
        shown = vmm.api.ok("GET", "/vmmd/snapshot/targets")
        assert isinstance(shown, dict)
        for target in shown["targets"]:
            body = {
                "snapshot_path": str(tmp_path / "t.state"),
                "mem_file_path": str(tmp_path / "t.mem"),
                "version": target["version"],
            }
            status, _ = vmm.api.call("PUT", "/snapshot/create", body)
            assert (status == 204) is (target["refusal"] is None)
