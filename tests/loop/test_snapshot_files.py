"""The files of a snapshot: refusals, failures, and a kill at every step."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.saver import SIZE, content, save
from vmmd.cli.snapshot.check import settle
from vmmd.cli.snapshot.files import Pair
from vmmd.errors import ConfigError, HostError
from vmmd.loop import commit
from vmmd.loop.origin import open_memory_file
from vmmd.loop.snapshot_files import SnapshotFiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROOT = Path(__file__).resolve().parent.parent.parent


def loadable(folder: Path) -> str | None:
    """The id of the snapshot in a folder; None if there is none to load."""
    if not (folder / "s").exists():
        return None
    snapshot_id = (folder / "s").read_text()
    fd = open_memory_file(str(folder / "m"), SIZE, snapshot_id)
    with open(fd, "rb") as file:
        assert file.read() == content(snapshot_id)
    return snapshot_id


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def left(folder: Path) -> tuple[commit.Names, ...]:
    return commit.interrupted(str(folder / "s"), str(folder / "m"))


async def test_files_get_their_names_and_nothing_else_is_left(tmp_path: Path) -> None:
    await save(str(tmp_path), "old", "Full", "")
    assert loadable(tmp_path) == "old"
    await save(str(tmp_path), "new", "Full", "")
    assert loadable(tmp_path) == "new"
    assert names(tmp_path) == {"s", "m"}


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_diff_is_merged_in_place_only_if_nobody_has_it_loaded(
    tmp_path: Path, *, loaded: bool
) -> None:
    await save(str(tmp_path), "old", "Full", "")
    inode = (tmp_path / "m").stat().st_ino
    fd = open_memory_file(str(tmp_path / "m"), SIZE, "old") if loaded else -1
    await save(str(tmp_path), "new", "Diff", "")
    assert loadable(tmp_path) == "new"
    assert names(tmp_path) == {"s", "m"}
    assert ((tmp_path / "m").stat().st_ino == inode) != loaded
    if loaded:
        assert os.pread(fd, SIZE, 0) == content("old")
        os.close(fd)


@pytest.mark.parametrize("kind", ["Full", "Diff"])
async def test_a_copy_by_links_stays_what_it_is(tmp_path: Path, kind: str) -> None:
    """As `cp -al` makes it."""
    await save(str(tmp_path), "old", "Full", "")
    keep = tmp_path / "keep"
    shutil.copytree(tmp_path, keep, copy_function=os.link)
    await save(str(tmp_path), "new", kind, "")
    assert (loadable(keep), loadable(tmp_path)) == ("old", "new")


@pytest.mark.parametrize("step", ["state-sealed", "merge-begun"])
async def test_nor_does_a_merge_that_was_left_reach_it(
    tmp_path: Path, step: str
) -> None:
    await save(str(tmp_path), "old", "Full", "")
    run(tmp_path, "new", "Diff", step)
    (tmp_path / "link").hardlink_to(tmp_path / "m")
    assert await check(tmp_path)
    begun = step == "merge-begun"  # too late, and M is of no use else
    assert loadable(tmp_path) == ("new" if begun else "old")
    assert names(tmp_path) == {"s", "m", "link"}


@pytest.mark.parametrize("kind", ["Full", "Diff"])
@pytest.mark.parametrize("step", SnapshotFiles.STEPS)
def test_killed_at_any_step_there_is_no_half(
    tmp_path: Path, step: str, kind: str
) -> None:
    if kind == "Full" and step == "merge-begun":
        return
    folder = tmp_path / "folder"
    folder.mkdir()
    run(folder, "old", "Full", "")
    run(folder, "new", kind, step)
    done = SnapshotFiles.STEPS.index(step)
    sealed = SnapshotFiles.STEPS.index("state-sealed")
    replaced = SnapshotFiles.STEPS.index("state-replaced")
    if done <= sealed:
        assert loadable(folder) == "old"
    else:
        assert loadable(folder) == ("new" if done >= replaced else None)
    for action in (commit.finish, commit.undo):
        copy = tmp_path / action.__name__
        shutil.copytree(folder, copy)
        merging = kind == "Diff" and sealed + 1 < done < replaced
        for each in left(copy):
            assert not commit.is_alive(each)
            assert commit.can_finish(each) == (sealed <= done < replaced)
            if action is commit.undo and merging:
                with pytest.raises(HostError, match="finish it instead"):
                    commit.undo(each)
                return
            action(each)
        undone = action is commit.undo and done < replaced
        assert loadable(copy) == ("new" if done >= sealed and not undone else "old")
        assert names(copy) == {"s", "m"}


@pytest.mark.parametrize("step", ["state-sealed", "previous-kept", "memory-replaced"])
def test_the_first_snapshot_can_be_undone_too(tmp_path: Path, step: str) -> None:
    run(tmp_path, "old", "Full", step)
    assert loadable(tmp_path) is None
    for each in left(tmp_path):
        commit.undo(each)
    assert names(tmp_path) == set()


async def test_a_file_of_the_user_s_own_stays(tmp_path: Path) -> None:
    """No temporary name is one that somebody would give a file."""
    (tmp_path / "s.prev").write_text("mine")
    (tmp_path / "m.prev").write_text("mine")
    await save(str(tmp_path), "old", "Full", "")
    run(tmp_path, "new", "Full", "previous-kept")
    for each in left(tmp_path):
        commit.undo(each)
    assert loadable(tmp_path) == "old"
    assert names(tmp_path) == {"s", "m", "s.prev", "m.prev"}
    assert (tmp_path / "s.prev").read_text() == "mine"
    (tmp_path / "s").unlink()
    run(tmp_path, "new", "Full", "state-sealed")
    for each in left(tmp_path):
        commit.undo(each)
    assert names(tmp_path) == {"m", "s.prev", "m.prev"}


def run(folder: Path, snapshot_id: str, kind: str, step: str) -> None:
    """Save in another process, which kills itself at ``step``."""
    command = [sys.executable, "-m", "tests.helpers.saver"]
    command += [str(folder), snapshot_id, kind, step]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == (-9 if step else 0)


@pytest.mark.parametrize("step", ["memory-opened", "memory-sealed", "memory-replaced"])
async def test_the_next_create_finishes_or_clears_what_was_left(
    tmp_path: Path, step: str
) -> None:
    run(tmp_path, "old", "Full", step)
    assert names(tmp_path) - {"m"}
    await save(str(tmp_path), "new", "Full", "")
    assert loadable(tmp_path) == "new"
    assert names(tmp_path) == {"s", "m"}


async def test_an_interrupted_merge_is_finished_before_the_next(
    tmp_path: Path,
) -> None:
    await save(str(tmp_path), "old", "Full", "")
    run(tmp_path, "new", "Diff", "merge-begun")
    assert loadable(tmp_path) is None
    paths = (str(tmp_path / "s"), str(tmp_path / "m"))
    with SnapshotFiles.check(*paths, "next") as files:
        onto = await files.find_onto(SIZE, "new", None)
        assert onto is not None
        assert not onto.copy
        await files.open_memory()
    assert loadable(tmp_path) == "new"
    assert names(tmp_path) == {"s", "m"}


async def next_create(folder: Path) -> bool:
    """Begin a Diff of "old", and leave it; whether it would be into a copy."""
    paths = (str(folder / "s"), str(folder / "m"))
    with SnapshotFiles.check(*paths, "next") as files:
        onto = await files.find_onto(SIZE, "old", None)
        assert onto is not None
        return onto.copy


async def check(folder: Path) -> bool:
    """As `vmmd snapshot check`; whether there was something to end."""
    pair = Pair("folder", str(folder / "s"), str(folder / "m"))
    return len(list(settle(pair))) == 1


@pytest.mark.parametrize("end", [next_create, check])
@pytest.mark.parametrize("step", ["state-sealed", "previous-kept"])
async def test_a_merge_that_was_left_does_not_reach_a_guest(
    tmp_path: Path, step: str, end: Callable[[Path], Awaitable[bool]]
) -> None:
    """The old pair was whole, and a VM has loaded it since."""
    await save(str(tmp_path), "old", "Full", "")
    run(tmp_path, "new", "Diff", step)
    fd = open_memory_file(str(tmp_path / "m"), SIZE, "old")
    with mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ) as guest:
        assert await end(tmp_path)
        assert guest[:] == content("old")
    os.close(fd)
    assert loadable(tmp_path) == "old"
    assert names(tmp_path) == {"s", "m"}


@pytest.mark.parametrize("end", [next_create, check])
async def test_a_merge_that_has_begun_waits_for_the_guest(
    tmp_path: Path, end: Callable[[Path], Awaitable[bool]]
) -> None:
    await save(str(tmp_path), "old", "Full", "")
    run(tmp_path, "new", "Diff", "merge-begun")
    before = names(tmp_path)
    fd = open_memory_file(str(tmp_path / "m"), SIZE, None)
    with pytest.raises(HostError, match="a VM runs from it, and a merge"):
        await end(tmp_path)
    assert os.pread(fd, SIZE, 0) == content("old")
    assert names(tmp_path) == before
    os.close(fd)
    assert await check(tmp_path)
    assert loadable(tmp_path) == "new"


async def test_a_create_under_way_is_not_disturbed(tmp_path: Path) -> None:
    paths = (str(tmp_path / "s"), str(tmp_path / "m"))
    with (
        SnapshotFiles.check(*paths, "one") as first,
        SnapshotFiles.check(*paths, "two") as second,
    ):
        await first.open_memory()
        with pytest.raises(HostError, match="another snapshot is being written"):
            await second.open_memory()
    assert names(tmp_path) == set()


async def test_left_early_there_is_nothing_new(tmp_path: Path) -> None:
    await save(str(tmp_path), "old", "Full", "")
    paths = (str(tmp_path / "s"), str(tmp_path / "m"))

    def stop(step: str) -> None:
        if step == "state-sealed":
            raise OSError(errno.ENOSPC, "")

    with SnapshotFiles.check(*paths, "new", at_step=stop) as files:
        await files.open_memory()
        with pytest.raises(OSError, match="28"):
            await files.commit(b"new")
    assert loadable(tmp_path) == "old"
    assert names(tmp_path) == {"s", "m"}


async def test_a_commit_that_fails_is_undone(tmp_path: Path) -> None:
    await save(str(tmp_path), "old", "Full", "")
    (tmp_path / ".s.new.prev").mkdir()
    with pytest.raises(HostError, match=r"Cannot perform rename .* \(os error 21\)"):
        await save(str(tmp_path), "new", "Full", "")
    assert loadable(tmp_path) == "old"
    assert names(tmp_path) == {"s", "m", ".s.new.prev"}


@pytest.mark.parametrize(
    ("state", "memory", "text"),
    [
        ("no/s", "m", "snapshot backing file: No such file or directory (os error 2)"),
        ("s", "no/m", "memory backing file: No such file or directory (os error 2)"),
        ("d", "m", "snapshot backing file: Is a directory (os error 21)"),
        ("s", "d", "memory backing file: Is a directory (os error 21)"),
        ("s/", "m", "snapshot backing file: Is a directory (os error 21)"),
        ("file/s", "m", "snapshot backing file: Not a directory (os error 20)"),
        ("s", "pipe", "memory backing file: Invalid argument (os error 22)"),
        (
            "socket",
            "m",
            "snapshot backing file: No such device or address (os error 6)",
        ),
        ("s" * 250, "m", "snapshot backing file: Filename too long (os error 36)"),
    ],
)
def test_targets_that_cannot_be_written(
    tmp_path: Path, state: str, memory: str, text: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK)
    before = names(tmp_path)
    with pytest.raises(HostError) as caught:
        SnapshotFiles.check(f"{tmp_path}/{state}", f"{tmp_path}/{memory}", "id")
    assert str(caught.value) == f"Cannot perform open on the {text}"
    assert names(tmp_path) == before


def test_the_longest_name_has_room_for_all_temporary_ones(tmp_path: Path) -> None:
    fits = 255 - len("..00000000-0000-0000-0000-000000000000.merging")
    with pytest.raises(HostError, match="memory backing file: Filename too long"):
        SnapshotFiles.check(str(tmp_path / "s"), f"{tmp_path}/{'m' * (fits + 1)}", "id")
    SnapshotFiles.check(str(tmp_path / "s"), f"{tmp_path}/{'m' * fits}", "id")


def test_an_empty_path_is_no_file() -> None:
    with pytest.raises(HostError, match=r"snapshot backing file: No such file"):
        SnapshotFiles.check("", "m", "id")


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "new")
    for state, memory in (("new", "new"), ("a", "b"), ("new", "c")):
        with pytest.raises(ConfigError, match="are the same"):
            SnapshotFiles.check(str(tmp_path / state), str(tmp_path / memory), "id")


def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    in_use = {str(tmp_path / "disk"): "drive rootfs"}
    paths = (str(tmp_path / "s"), str(tmp_path / "link"))
    with pytest.raises(ConfigError, match="is the file of drive rootfs"):
        SnapshotFiles.check(*paths, "id", in_use)


def test_more_than_there_is_room_for_is_refused(tmp_path: Path) -> None:
    paths = (str(tmp_path / "s"), str(tmp_path / "m"))
    with SnapshotFiles.check(*paths, "id") as files:
        files.check_space(1 << 20)
        with pytest.raises(HostError, match=r"No space left on device \(os error 28\)"):
            files.check_space(1 << 60)


async def test_a_link_is_followed_and_a_mode_kept(tmp_path: Path) -> None:
    (tmp_path / "real").touch(0o640)
    (tmp_path / "m").symlink_to("real")
    await save(str(tmp_path), "old", "Full", "")
    assert (tmp_path / "m").is_symlink()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert loadable(tmp_path) == "old"


async def test_a_memory_file_of_another_snapshot_is_refused(tmp_path: Path) -> None:
    await save(str(tmp_path), "old", "Full", "")
    path, fds = str(tmp_path / "m"), len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="is of snapshot old, but the state file of x"):
        open_memory_file(path, SIZE, "x")
    with pytest.raises(HostError, match="Total sum of memory regions exceeds"):
        open_memory_file(path, SIZE + 1, "old")
    with pytest.raises(HostError, match=f"has {SIZE} bytes, but the snapshot has 1"):
        open_memory_file(path, 1, "old")
    for other in ("/dev/null", str(tmp_path)):
        with pytest.raises(HostError, match="Total sum of memory regions exceeds"):
            open_memory_file(other, SIZE, "old")
    with pytest.raises(HostError, match="Failed to load guest memory: No such file"):
        open_memory_file(str(tmp_path / "no"), SIZE, "old")
    writer = os.open(path, os.O_RDWR)
    fcntl.flock(writer, fcntl.LOCK_EX)
    with pytest.raises(HostError, match="is being written by another process"):
        open_memory_file(path, SIZE, "old")
    os.close(writer)
    assert len(os.listdir("/proc/self/fd")) == fds


def test_a_target_with_a_longer_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / ".s.more.id.new").touch()
    assert left(tmp_path) == ()


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o size=8k,nr_inodes=20 none {tmp_path}
        cd {ROOT}
        {sys.executable} -m tests.helpers.saver {tmp_path} old Full "" 2>&1
        ls -A {tmp_path}
    """
    command = ["unshare", "-rm", "sh", "-ec", script.replace("2>&1", "2>&1 || true")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.rstrip().splitlines()[-1]
    text = "Guest memory error: No space left on device (os error 28)"
    assert last.endswith(text), done.stdout + done.stderr
