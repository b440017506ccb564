"""Commands on files: what is shown, compared, translated, ended, verified."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.helpers.golden import FORMAT_FILE
from tests.helpers.memory_files import FileModel, save
from tests.helpers.records import example
from tests.helpers.state_file import HEADER, file_of
from vmmd.cli.snapshot import COMMANDS, main
from vmmd.cli.snapshot.files import pair
from vmmd.cpu.state import VcpuState
from vmmd.loop.snapshot_files import SnapshotFiles
from vmmd.state.codec import Entry, pack
from vmmd.state.manifest import PAGE_SIZE
from vmmd.state.snapshot import MAGIC, SnapshotFile, encode
from vmmd.virtio.mmio import MmioState
from vmmd.vm_info import VmInfo

if TYPE_CHECKING:
    from pathlib import Path

MODEL = FileModel(2, {0: 1, 700: 2})
INFO = VmInfo(vcpu_count=1, mem_size_mib=64, boot_args="quiet")
VCPU = example(VcpuState)


def run(
    capsys: pytest.CaptureFixture[str], code: int, *arguments: object
) -> tuple[str, str]:
    """What a command prints; it must end with this code."""
    assert main([*map(str, arguments)]) == code
    shown = capsys.readouterr()
    return shown.out, shown.err


def state_file(path: Path, *records: object) -> Path:
    path.write_bytes(encode(file_of(*map(pack, records))))
    return path


def one_line(errors: str, *parts: str) -> None:
    assert len(errors.splitlines()) == 1
    for part in parts:
        assert part in errors


# inspect


def test_inspect_shows_header_memory_and_every_record_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state_file(tmp_path / "s", INFO, VCPU)
    out, _ = run(capsys, 0, "inspect", path)
    assert out.startswith("snapshot 5eed\n  parent     f00d\n  release    1.16.0\n")
    assert "  devices    block/rootfs, net/eth0\n" in out
    assert "  memory     Full, 2 MiB, 2 MiB of it data\n" in out
    assert "vm_info: version 3\n" in out
    assert '  boot_args = "quiet"\n' in out
    assert "\n  lapic.spiv = " in out
    assert "\n  xsave.xmm15 = " in out


def test_inspect_as_json_has_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state_file(tmp_path / "s", INFO, VCPU)
    shown = json.loads(run(capsys, 0, "inspect", path, "--json")[0])
    assert shown["header"]["snapshot_id"] == "5eed"
    assert shown["memory"]["pages"] == 512
    assert [record["kind"] for record in shown["records"]] == ["vm_info", "vcpu"]
    assert shown["records"][1]["fields"]["regs"]["rip"] == VCPU.regs.rip
    assert shown["faults"] == []


def test_inspect_keeps_kinds_that_it_does_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, _ = run(capsys, 0, "inspect", FORMAT_FILE)
    assert "later x: version 7, optional\n  new[0] = 1\n" in out


def test_a_newer_file_is_shown_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = dataclasses.replace(HEADER, format=9, producer_version="9.0")
    known = Entry("vm_info", "", 9, {"moon": "full", "vcpu_count": 3})
    path = tmp_path / "s"
    path.write_bytes(encode(SnapshotFile(header, (known,))))
    out, errors = run(capsys, 1, "inspect", path)
    assert '  moon = "full"\n' in out
    one_line(errors, str(path), "format 9 is newer than 1")
    for command in (("diff", path, path), ("translate", path, "1.5.0", tmp_path / "o")):
        _, errors = run(capsys, 2, *command)
        one_line(errors, str(path), "made by vmmd 9.0", "vmmd snapshot inspect")


def test_a_damaged_file_is_shown_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state_file(tmp_path / "s", INFO, VCPU)
    path.write_bytes(path.read_bytes()[:-3000])
    out, errors = run(capsys, 1, "inspect", path)
    assert "vm_info: version 3" in out
    assert "the checksum is wrong" in errors
    assert "record 2: ends too early" in errors


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "File too short"),
        (b"\x7fELF" * 9, "no state file of vmmd"),
        (MAGIC + bytes(9), ""),
    ],
)
def test_what_has_no_header_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, text: str
) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    for command in ("inspect", "verify", "translate"):
        more = {"verify": ("m",), "translate": ("1.0.0", "o")}.get(command, ())
        _, errors = run(capsys, 2, command, path, *more)
        one_line(errors, f"vmmd snapshot {command}: {path}: ", text)


def test_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, errors = run(capsys, 2, "inspect", tmp_path / "none")
    one_line(errors, str(tmp_path / "none"), "No such file")
    _, errors = run(capsys, 2, "verify", tmp_path)
    one_line(errors, f"{tmp_path}/vm.state: there is no such file")


# diff


def test_diff_is_path_by_path_and_ends_as_diff_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = state_file(tmp_path / "one", INFO, VCPU)
    regs = dataclasses.replace(VCPU.regs, rip=0x1234_5678)
    moved = dataclasses.replace(VCPU, regs=regs)
    other = state_file(tmp_path / "other", moved, MmioState())
    assert run(capsys, 0, "diff", one, one) == ("", "")
    out, _ = run(capsys, 1, "diff", one, other)
    assert out == (
        "vm_info: only in A\n"
        f"vcpu: regs.rip: {VCPU.regs.rip:#x} -> 0x12345678\n"
        "mmio: only in B\n"
    )


def test_diff_of_headers_and_memory_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a", "a", MODEL, pack(INFO))
    save(tmp_path / "b", "b", FileModel(2, {0: 1, 700: 3}), pack(INFO))
    files = tmp_path / "a" / "vm.state", tmp_path / "b" / "vm.state"
    out, _ = run(capsys, 1, "diff", *files)
    assert out == (
        'header: snapshot_id: "a" -> "b"\nmemory: blocks: + 1 of 2 differ: 1\n'
    )
    assert run(capsys, 0, "diff", *files, "--records") == ("", "")


# translate


def test_translate_lists_each_loss_and_diff_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out_path = state_file(tmp_path / "s", INFO), tmp_path / "old"
    dry, _ = run(capsys, 0, "translate", path, "1.1.0", "--dry-run")
    assert not out_path.exists()
    out, _ = run(capsys, 0, "translate", path, "1.1.0", out_path)
    assert "lost: vm_info: smt: " in out
    assert out.splitlines()[:-1] == dry.splitlines()[:-1]
    out, _ = run(capsys, 1, "diff", path, out_path)
    assert 'vm_info: boot_args: "quiet" -> none\n' in out
    run(capsys, 0, "translate", out_path, "1.16.0", out_path)
    assert sorted(os.listdir(tmp_path)) == ["old", "s"]
    out, _ = run(capsys, 1, "diff", path, out_path)
    assert "target_version" not in out


def test_translate_refuses_as_a_create_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = MmioState(driver_features=1 << 29)
    path = tmp_path / "s"
    path.write_bytes(encode(file_of(pack(busy, "net/eth0"))))
    _, errors = run(capsys, 1, "translate", path, "1.0.0", tmp_path / "o")
    one_line(errors, str(path), "notification suppression")
    _, errors = run(capsys, 2, "translate", path, "1.0", tmp_path / "o")
    one_line(errors, "1.0: there is no such release", "1.16.0")
    assert not (tmp_path / "o").exists()


def test_translate_judges_every_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    path.write_bytes(encode(file_of(Entry("power", "", 1, {"sleep_control": "x"}))))
    _, errors = run(capsys, 2, "translate", path, "1.0.0", tmp_path / "o")
    one_line(errors, str(path), "power: sleep_control: is a string")


def test_translate_needs_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state_file(tmp_path / "s", INFO)
    with pytest.raises(SystemExit, match="2"):
        main(["translate", str(path), "1.0.0"])
    assert "OUT is needed" in capsys.readouterr().err
    _, errors = run(capsys, 2, "translate", path, "1.5.0", tmp_path / "no" / "o")
    one_line(errors, "No such file or directory")


# verify and check


def test_verify_names_the_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "s", "s", MODEL)
    state, memory = tmp_path / "s" / "vm.state", tmp_path / "s" / "vm.mem"
    out, _ = run(capsys, 0, "verify", state, memory)
    assert out == f"{memory}: 2 blocks as the state file says\n"
    for page, text in ((700, "is not what"), (3, "has data where")):
        save(tmp_path / "s", "s", MODEL)
        with memory.open("r+b") as file:
            file.seek(page * PAGE_SIZE)
            file.write(b"\xee")
        out, _ = run(capsys, 1, "verify", tmp_path / "s")
        assert f"{memory}: block {page // 512} at byte " in out
        assert text in out
        memory.unlink()


def test_a_memory_file_that_is_not_this_snapshot_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, name, MODEL)
    state, memory = tmp_path / "a" / "vm.state", tmp_path / "b" / "vm.mem"
    for command in ("verify", "check"):
        _, errors = run(capsys, 2, command, state, memory)
        one_line(errors, str(memory), "is of snapshot b")
        _, errors = run(capsys, 2, command, f"{state}:{tmp_path}/none")
        one_line(errors, f"{tmp_path}/none", "No such file")


def test_check_of_what_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "s", "s", MODEL)
    state = tmp_path / "s" / "vm.state"
    said = f"{state}: snapshot s, Full, is complete\n"
    assert run(capsys, 0, "check", tmp_path / "s")[0] == said
    shutil.copy(state, tmp_path / "s" / ".vm.state.s.prev")
    shutil.copy(state, f"{state}.prev")
    out, _ = run(capsys, 0, "check", tmp_path / "s")
    assert out == f"{state}: snapshot s was interrupted: finished\n{said}"
    mine = "vm.state.prev"
    assert sorted(os.listdir(tmp_path / "s")) == ["vm.mem", "vm.state", mine]


@pytest.mark.parametrize("suffix", ["prev", "merging"])
def test_check_clears_away_what_is_left_of_the_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """There was no state file before, and the create was killed at its end."""
    save(tmp_path / "s", "s", MODEL)
    (tmp_path / "s" / f".vm.mem.s.{suffix}").touch()
    out, _ = run(capsys, 0, "check", tmp_path / "s")
    assert "snapshot s was interrupted: finished\n" in out
    assert sorted(os.listdir(tmp_path / "s")) == ["vm.mem", "vm.state"]


def test_check_names_the_state_file_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "s", "s", MODEL)
    previous = tmp_path / "s" / ".vm.state.s.prev"
    os.rename(tmp_path / "s" / "vm.state", previous)
    _, errors = run(capsys, 1, "check", tmp_path / "s")
    one_line(errors, f"there is no snapshot; {previous} is one before it")


def interrupt(folder: Path, *, complete: bool) -> None:
    """What a kill leaves of a create of snapshot "new" over "old"."""
    save(folder, "old", MODEL)
    save(folder / "new", "new", MODEL)
    suffix = "new" if complete else "part"
    for name in ("vm.state", "vm.mem"):
        os.rename(folder / "new" / name, folder / f".{name}.new.{suffix}")
    (folder / "new").rmdir()


@pytest.mark.parametrize(
    ("complete", "undo", "left", "said"),
    [
        (True, (), "new", "finished"),
        (True, ("--undo",), "old", "undone"),
        (False, (), "old", "undone"),
    ],
)
def test_check_ends_what_was_interrupted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    complete: bool,
    undo: tuple[str, ...],
    left: str,
    said: str,
) -> None:
    folder = tmp_path / "s"
    interrupt(folder, complete=complete)
    out, _ = run(capsys, 0, "check", folder, *undo)
    assert out == (
        f"{folder}/vm.state: snapshot new was interrupted: {said}\n"
        f"{folder}/vm.state: snapshot {left}, Full, is complete\n"
    )
    assert sorted(os.listdir(folder)) == ["vm.mem", "vm.state"]


def test_whoever_misses_the_state_file_is_told_of_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    interrupt(folder, complete=True)
    os.rename(folder / "vm.state", folder / ".vm.state.new.prev")
    _, errors = run(capsys, 2, "verify", folder)
    one_line(errors, f"`vmmd snapshot check {folder}` ends it")
    run(capsys, 0, "check", folder)
    run(capsys, 0, "verify", folder)


def test_check_leaves_a_create_alone_that_is_under_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import trio

    async def under_way() -> None:
        paths = (str(tmp_path / "vm.state"), str(tmp_path / "vm.mem"))
        with SnapshotFiles.check(*paths, "new") as files:
            await files.open_memory()
            _, errors = run(capsys, 2, "check", tmp_path)
            one_line(errors, "snapshot new is being written now")

    trio.run(under_way)
    _, errors = run(capsys, 1, "check", tmp_path)
    one_line(errors, f"{tmp_path}/vm.state: there is no snapshot")


# rebase


def test_rebase_says_what_the_base_is_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "base", "base", MODEL)
    save(tmp_path / "diff", "diff", FileModel(2, {3: 9}, parent_id="base"))
    base, diff = tmp_path / "base", tmp_path / "diff"
    out, _ = run(capsys, 0, "rebase", base, f"{diff}/vm.state:{diff}/vm.mem")
    assert out == f"{base}: 1 diff merged: snapshot diff, Full, 12 KiB of data\n"
    out, _ = run(capsys, 0, "rebase", base, diff)
    assert out == f"{base}: has all of that already\n"
    run(capsys, 0, "verify", base)


def test_rebase_ends_an_interrupted_create_of_the_base_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(tmp_path / "base", complete=True)
    save(tmp_path / "diff", "diff", FileModel(2, {3: 9}, parent_id="new"))
    out, _ = run(capsys, 0, "rebase", tmp_path / "base", tmp_path / "diff")
    assert "was interrupted: finished\n" in out
    assert "1 diff merged" in out


# All of them


def test_pairs_are_folders_or_two_paths() -> None:
    assert pair("d").state == "d/vm.state"
    assert pair("d").memory == "d/vm.mem"
    assert (pair("a:b").state, pair("a:b").memory) == ("a", "b")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_the_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        import_module(f"vmmd.cli.snapshot.{name}").main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"usage: vmmd snapshot {name}" in out
    assert "exit code: 0 done; 1 " in out


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, 0)
    assert all(f"\n  {name} " in out for name in COMMANDS)
    _, errors = run(capsys, 2, "fly")
    assert "no command 'fly'" in errors
