"""What is left of a create, met together with another file than its own."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from vmmd.cli.snapshot.check import settle
from vmmd.cli.snapshot.files import Pair
from vmmd.errors import HostError
from vmmd.loop.origin import get_id
from vmmd.loop.snapshot_files import SnapshotFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 4096


async def save(
    state: Path, memory: Path, snapshot_id: str, parent: str | None, last_step: str
) -> None:
    """A snapshot whose files hold its id; with ``parent`` merged in place."""

    def at_step(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    paths = (str(state), str(memory))
    with SnapshotFiles.check(*paths, snapshot_id, at_step=at_step) as files:
        if parent:
            assert await files.find_onto(SIZE, parent, None) is not None
        fd = await files.open_memory()
        os.ftruncate(fd, SIZE)
        os.pwrite(fd, snapshot_id.encode(), 0)
        if parent:  # a journal: the bitmap of its pages is at the end
            os.pwrite(fd, b"\1" + bytes(63), SIZE)
        await files.commit(snapshot_id.encode())


def kill(
    state: Path, memory: Path, snapshot_id: str, step: str, parent: str | None = None
) -> None:
    """The same in another process, which kills itself at ``step``."""
    child = os.fork()
    if not child:
        try:
            trio.run(save, state, memory, snapshot_id, parent, step)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def make(state: Path, memory: Path, snapshot_id: str) -> None:
    trio.run(partial(save, state, memory, snapshot_id, None, ""))


def check(state: Path, memory: Path, *, undo: bool = False) -> list[str]:
    return list(settle(Pair("pair", str(state), str(memory)), undo_all=undo))


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


SEALED = ("memory-sealed", "state-sealed", "previous-kept", "memory-replaced")


@pytest.mark.parametrize("kind", ["Full", "Diff"])
@pytest.mark.parametrize("step", [*SEALED, "merge-begun"])
def test_what_another_state_file_needs_is_not_touched(
    tmp_path: Path, step: str, kind: str
) -> None:
    if kind == "Full" and step == "merge-begun":
        return
    one, two, memory = (tmp_path / name for name in ("one", "two", "mem"))
    make(one, memory, "old")
    kill(one, memory, "new", step, "old" if kind == "Diff" else None)
    before = contents(tmp_path)
    with pytest.raises(HostError, match=r"mem: snapshot new .* another state file: `"):
        make(two, memory, "next")
    with pytest.raises(HostError, match=r"mem: snapshot new .* another state file: `"):
        check(two, memory)
    assert contents(tmp_path) == before
    check(one, memory)
    snapshot_id = "old" if step == "memory-sealed" else "new"
    assert one.read_text() == get_id(str(memory)) == snapshot_id
    make(two, memory, "next")
    assert set(contents(tmp_path)) == {"one", "two", "mem"}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", ["state-sealed", "previous-kept"])
def test_nor_what_another_memory_file_needs(
    tmp_path: Path, step: str, *, before: bool
) -> None:
    state, one, two = (tmp_path / name for name in ("state", "one", "two"))
    make(state, one, "old")
    if before:
        make(tmp_path / "another", two, "two")
    kill(state, one, "new", step)
    held = contents(tmp_path)
    with pytest.raises(HostError, match=r"snapshot new of it .*, with another memory"):
        make(state, two, "next")
    with pytest.raises(HostError, match=r"snapshot new of it .*, with another memory"):
        check(state, two)
    assert contents(tmp_path) == held
    check(state, one)
    assert state.read_text() == get_id(str(one)) == "new"


def test_a_merge_that_has_begun_is_not_cleared_away(tmp_path: Path) -> None:
    one, two, memory = (tmp_path / name for name in ("one", "two", "mem"))
    make(one, memory, "old")
    kill(one, memory, "new", "merge-begun", "old")
    with pytest.raises(HostError, match="another state file"):
        check(two, memory, undo=True)
    check(one, memory)
    assert one.read_text() == get_id(str(memory)) == "new"


def test_what_nobody_needs_can_be_cleared_away(tmp_path: Path) -> None:
    one, two, memory = (tmp_path / name for name in ("one", "two", "mem"))
    make(one, memory, "old")
    kill(one, memory, "new", "state-sealed")
    (tmp_path / ".one.new.new").unlink()
    with pytest.raises(HostError, match="where those are gone, --undo clears it"):
        check(one, memory)
    check(one, memory, undo=True)
    make(two, memory, "next")
    assert set(contents(tmp_path)) == {"one", "two", "mem"}


def test_undo_leaves_the_memory_of_another_snapshot(tmp_path: Path) -> None:
    one, two, memory = (tmp_path / name for name in ("one", "two", "mem"))
    kill(one, memory, "new", "memory-replaced")
    (tmp_path / "aside").mkdir()
    os.rename(tmp_path / ".one.new.new", tmp_path / "aside" / "state")
    make(two, memory, "next")
    os.rename(tmp_path / "aside" / "state", tmp_path / ".one.new.new")
    check(one, memory, undo=True)
    assert two.read_text() == get_id(str(memory)) == "next"


@pytest.mark.parametrize("step", ["state-sealed", "previous-kept"])
@pytest.mark.parametrize("end", ["check", "next"])
def test_without_its_new_memory_it_is_undone(
    tmp_path: Path, step: str, end: str
) -> None:
    """On two file systems a power loss may keep the later of two names alone."""
    state, memory = tmp_path / "state", tmp_path / "mem"
    make(state, memory, "old")
    kill(state, memory, "new", step)
    os.rename(tmp_path / ".mem.new.new", tmp_path / ".mem.new.part")
    if end == "check":
        assert "interrupted: undone: its memory is gone" in check(state, memory)[0]
    else:
        kill(state, memory, "next", "memory-opened")
        check(state, memory)
    assert state.read_text() == get_id(str(memory)) == "old"
    assert set(contents(tmp_path)) == {"state", "mem"}


@pytest.mark.parametrize("name", ["m", "aside/m"])
def test_a_folder_of_memory_s_own_is_durable_before_the_state_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "aside").mkdir()
    fsync, synced, before = os.fsync, list[str](), list[str]()

    def record(fd: int) -> None:
        fsync(fd)
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    def at_step(step: str) -> None:
        if step == "memory-sealed":
            before.extend(synced)

    async def save_two() -> None:
        paths = (str(tmp_path / "s"), str(tmp_path / name))
        with SnapshotFiles.check(*paths, "new", at_step=at_step) as files:
            await files.open_memory()
            await files.commit(b"new")

    monkeypatch.setattr(os, "fsync", record)
    trio.run(save_two)
    own = name != "m"
    assert before[1:] == [str(tmp_path / "aside")] * own


def kill_undo(state: Path, memory: Path, after: int) -> bool:
    """Undo in another process, killed ``after`` changes of names; whether it was."""
    child = os.fork()
    if not child:
        left = iter(range(after))

        def dying(change: Callable[..., None]) -> Callable[..., None]:
            def call(*paths: str) -> None:
                change(*paths)
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            return call

        try:
            for name in ("rename", "unlink"):
                setattr(os, name, dying(getattr(os, name)))
            check(state, memory, undo=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("step", ["state-sealed", "previous-kept", "memory-replaced"])
def test_an_undo_killed_at_any_moment_is_ended_by_the_next_check(
    tmp_path: Path, step: str, *, first: bool, undo: bool
) -> None:
    for after in range(20):
        folder = tmp_path / str(after)
        folder.mkdir()
        state, memory = folder / "state", folder / "mem"
        if not first:
            make(state, memory, "old")
        kill(state, memory, "new", step)
        if not kill_undo(state, memory, after):
            break
        check(state, memory, undo=undo)
        now = contents(folder)
        assert set(now) in ({"state", "mem"}, set())
        if now:
            assert state.read_text() == get_id(str(memory))
        assert undo <= (now.get("state") == (None if first else b"old"))
    assert 0 < after < 19
