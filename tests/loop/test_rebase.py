"""Diffs merged into their base: the result, refusals, and kills on the way."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.commands import ROOT
from tests.helpers.memory_files import FileModel, nobody, save, written
from tests.helpers.rebaser import part
from vmmd.cli.snapshot.check import settle
from vmmd.cli.snapshot.files import folder as pair_in
from vmmd.errors import ConfigError, HostError, SnapshotError
from vmmd.loop.blocks import verify
from vmmd.loop.origin import get_id
from vmmd.loop.rebase import chain, rebase
from vmmd.loop.snapshot_files import SnapshotFiles
from vmmd.state.manifest import PAGE_SIZE
from vmmd.state.snapshot import decode

BASE = FileModel(3, {0: 1, 1: 2, 511: 3, 600: 9})
FIRST = FileModel(3, {1: 12, 5: 13}, parent_id="base")
SECOND = FileModel(3, {5: 23, 511: 0, 1535: 24}, parent_id="first")
MERGED = SECOND.over(FIRST.over(BASE))


def three(folder: Path) -> tuple[Path, Path, Path]:
    """A base and two diffs."""
    names = {"base": BASE, "first": FIRST, "second": SECOND}
    for name, model in names.items():
        save(folder / name, name, model)
    return folder / "base", folder / "first", folder / "second"


def merge(base: Path, *diffs: Path) -> None:
    first, rest = part(base), [part(diff) for diff in diffs]
    trio.run(rebase, first, chain(first, rest), nobody)


def assert_is(folder: Path, snapshot_id: str, model: FileModel) -> None:
    """The snapshot in a folder, and nothing beside it."""
    header = decode((folder / "vm.state").read_bytes()).header
    assert header.snapshot_id == snapshot_id
    assert header.parent_id == header.manifest.parent_id == model.parent_id
    assert header.manifest == model.manifest
    assert (folder / "vm.mem").read_bytes() == model.content()
    assert get_id(str(folder / "vm.mem")) == snapshot_id
    assert sorted(os.listdir(folder)) == ["vm.mem", "vm.state"]


def test_the_base_becomes_the_last_snapshot_and_the_diffs_stay(tmp_path: Path) -> None:
    base, first, second = three(tmp_path)
    merge(base, first, second)
    assert_is(base, "second", MERGED)
    assert_is(first, "first", FIRST)
    assert_is(second, "second", SECOND)
    entries = decode((base / "vm.state").read_bytes()).entries
    assert entries == decode((second / "vm.state").read_bytes()).entries


def test_a_base_that_somebody_runs_from_keeps_its_inode_s_content(
    tmp_path: Path,
) -> None:
    base, first, second = three(tmp_path)
    with (base / "vm.mem").open("rb") as mapped:
        fcntl.flock(mapped, fcntl.LOCK_SH)
        merge(base, first, second)
        assert mapped.read() == BASE.content()
    assert_is(base, "second", MERGED)
    assert os.stat(base / "vm.mem").st_blocks * 512 < 1 << 20  # the holes are holes


def test_one_after_the_other_is_the_same_as_at_once(tmp_path: Path) -> None:
    base, first, second = three(tmp_path)
    merge(base, first)
    assert_is(base, "first", FIRST.over(BASE))
    first_, rest = part(base), [part(first), part(second)]
    assert [diff.id for diff in chain(first_, rest)] == ["second"]
    merge(base, first, second)
    assert_is(base, "second", MERGED)
    assert chain(part(base), rest) == ()


def test_a_diff_onto_a_diff_is_a_diff(tmp_path: Path) -> None:
    _, first, second = three(tmp_path)
    merge(first, second)
    assert_is(first, "second", replace(SECOND.over(FIRST), parent_id="base"))


PAGES = st.dictionaries(st.integers(0, 1023), st.integers(0, 255), max_size=12)


@given(PAGES, st.lists(PAGES, min_size=1, max_size=3), st.booleans())
@settings(max_examples=30)
def test_any_chain(
    base: dict[int, int], diffs: list[dict[int, int]], loaded: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, whole = Path(name), FileModel(2, base)
        save(folder / "0", "0", whole)
        for number, pages in enumerate(diffs, 1):
            diff = FileModel(2, pages, parent_id=str(number - 1))
            save(folder / str(number), str(number), diff)
            whole = diff.over(whole)
        with (folder / "0" / "vm.mem").open("rb") as mapped:
            if loaded:
                fcntl.flock(mapped, fcntl.LOCK_SH)
            merge(*(folder / str(number) for number in range(len(diffs) + 1)))
        assert_is(folder / "0", str(len(diffs)), whole)


def test_blocks_that_nobody_knows_stay_so_unless_they_are_merged(
    tmp_path: Path,
) -> None:
    base, first, _ = three(tmp_path)
    unknown = replace(BASE.manifest, checksums=bytes(12), unverified=b"\7")
    state = part(base)
    header = replace(state.file.header, memory=unknown.to_plain())
    state = replace(state, file=replace(state.file, header=header))
    made = trio.run(rebase, state, [part(first)], nobody)
    assert made.unverified == b"\6"  # only block 0 was read
    with open(base / "vm.mem", "rb") as memory:
        assert verify(memory.fileno(), "m", made, nobody).wrong == ()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("base", "second"), "is relative to snapshot first"),
        (("base", "second", "first"), "is relative to snapshot first"),
        (("first", "base"), "is a Full"),
        (("base", "other"), "regions are not those"),
    ],
)
def test_what_is_no_chain_is_refused(
    tmp_path: Path, names: tuple[str, ...], text: str
) -> None:
    three(tmp_path)
    save(tmp_path / "other", "other", FileModel(2, {}, parent_id="base"))
    with pytest.raises(SnapshotError, match=text):
        merge(*(tmp_path / name for name in names))
    assert_is(tmp_path / "base", "base", BASE)


@pytest.mark.parametrize(("wrong", "page"), [("base", 0), ("first", 5)])
def test_damaged_memory_is_found_before_anything_changes(
    tmp_path: Path, wrong: str, page: int
) -> None:
    base, first, _ = three(tmp_path)
    with (tmp_path / wrong / "vm.mem").open("r+b") as memory:
        memory.seek(page * PAGE_SIZE)
        memory.write(b"\xee")
    before = (base / "vm.mem").read_bytes()
    with pytest.raises(SnapshotError, match=rf"{wrong}/vm\.mem: block 0 is not what"):
        merge(base, first)
    assert (base / "vm.mem").read_bytes() == before
    assert part(base).id == "base"
    assert sorted(os.listdir(base)) == ["vm.mem", "vm.state"]


def test_memory_of_another_snapshot_is_refused(tmp_path: Path) -> None:
    base, first, second = three(tmp_path)
    shutil.copy(second / "vm.mem", base / "vm.mem")
    with written(base / "vm.mem", BASE, "other"):
        pass
    with pytest.raises(HostError, match="is not of snapshot base"):
        merge(base, first)
    three(tmp_path)
    with written(first / "vm.mem", FIRST, "other"):
        pass
    with pytest.raises(HostError, match=r"first/vm\.mem: .* is of snapshot other"):
        merge(base, first)


def test_not_a_diff_onto_its_own_files(tmp_path: Path) -> None:
    base, first, _ = three(tmp_path)
    (base / "vm.mem").unlink()
    os.link(first / "vm.mem", base / "vm.mem")
    with pytest.raises(ConfigError, match="is the file of diff"):
        merge(base, first)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("step", SnapshotFiles.STEPS)
def test_killed_at_any_step_it_is_the_old_or_the_new_one(
    tmp_path: Path, step: str, loaded: bool
) -> None:
    base, first, second = three(tmp_path)
    with (base / "vm.mem").open("rb") as mapped:
        if loaded:
            fcntl.flock(mapped, fcntl.LOCK_SH)
        done = subprocess.run(
            [sys.executable, "-m", "tests.helpers.rebaser", step, base, first, second],
            cwd=ROOT,
            check=False,
        )
    in_place_only = step == "merge-begun" and loaded
    assert done.returncode == (0 if in_place_only else -signal.SIGKILL)
    list(settle(pair_in(str(base))))
    if step in ("checked", "memory-opened", "memory-sealed"):
        assert_is(base, "base", BASE)
        merge(base, first, second)
    assert_is(base, "second", MERGED)


def test_a_journal_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """Its last part, the bitmap, is written in part first: that is no success."""
    base, first, second = three(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = len(BASE.content())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        with pytest.raises(HostError, match="File too large"):
            merge(base, first, second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_is(base, "base", BASE)
