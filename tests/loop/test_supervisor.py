"""The supervisor before a start: configuration, its files, who has to wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.helpers.options import options
from vmmd import actions as a
from vmmd.config import (
    BootSourceConfig,
    DriveConfig,
    LoggerConfig,
    MachineConfigUpdate,
    VmStateChange,
)
from vmmd.errors import ConfigError
from vmmd.lifecycle import BEFORE, Phase
from vmmd.loop.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

START = a.InstanceStart()


def supervisor(folder: Path, config_text: str | None = None) -> Supervisor:
    return Supervisor(options(str(folder / "log"), config_text))


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = supervisor(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """Makes a file of a sector and gives its path."""

    def make(name: str) -> str:
        path = tmp_path / name
        path.write_bytes(bytes(512))
        return str(path)

    return make


def drive(path: str) -> a.PutDrive:
    return a.PutDrive(DriveConfig("d", None, False, path_on_host=path))


def open_paths() -> list[str]:
    """What this process has open, by name."""
    folder = "/proc/self/fd"
    links = (os.path.join(folder, fd) for fd in os.listdir(folder))
    return [os.readlink(link) for link in links if os.path.lexists(link)]


async def refused(machine: Supervisor, action: a.Action) -> str:
    with pytest.raises(ConfigError) as caught:
        await machine.perform(action)
    return str(caught.value)


@pytest.mark.parametrize(
    "action",
    [
        a.PatchVm(VmStateChange.PAUSED),
        a.PatchVm(VmStateChange.RESUMED),
        a.SendCtrlAltDel(),
        a.FlushMetrics(),
    ],
)
async def test_what_needs_a_guest_is_refused(
    fresh: Supervisor, action: a.Action
) -> None:
    assert await refused(fresh, action) == BEFORE
    assert fresh.phase is Phase.NOT_STARTED


async def test_a_step_that_fails_changes_nothing(
    fresh: Supervisor, file: Callable[[str], str]
) -> None:
    await fresh.perform(drive(file("one")))
    before = fresh.resources
    await refused(fresh, drive("/nowhere"))
    await refused(fresh, a.PatchMachineConfig(MachineConfigUpdate(vcpu_count=0)))
    await refused(fresh, a.PutBootSource(BootSourceConfig("/nowhere")))
    assert fresh.resources is before


async def test_a_file_that_is_replaced_is_closed(
    fresh: Supervisor, file: Callable[[str], str]
) -> None:
    one, two = file("one"), file("two")
    await fresh.perform(drive(one))
    assert one in open_paths()
    await fresh.perform(drive(two))
    assert two in open_paths()
    assert one not in open_paths()
    await fresh.close()
    assert two not in open_paths()


async def test_a_pipe_is_no_drive(fresh: Supervisor, tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    text = await refused(fresh, drive(pipe))
    assert text.endswith(f"the backing file: Invalid seek (os error 29) {pipe}")
    assert pipe not in open_paths()


async def test_a_start_that_fails_says_why_and_can_be_tried_again(
    fresh: Supervisor, file: Callable[[str], str]
) -> None:
    text = "Start microvm error: Cannot start microvm without kernel configuration."
    assert await refused(fresh, START) == text
    await fresh.perform(a.PutBootSource(BootSourceConfig(file("kernel"))))
    assert "Invalid Elf magic number" in await refused(fresh, START)
    assert fresh.phase is Phase.NOT_STARTED


async def test_a_log_file_that_cannot_be_opened(
    fresh: Supervisor, tmp_path: Path
) -> None:
    text = await refused(fresh, a.PutLogger(LoggerConfig(str(tmp_path))))
    assert (
        text == "Logger error: Failed to open target file: Is a directory (os error 21)"
    )


async def test_requests_wait_for_the_config_file(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.rate == 0
    machine = supervisor(tmp_path, "{}")
    answers: list[a.Answer] = []

    async def ask() -> None:
        answers.append(await machine.perform(a.GetInstanceInfo()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(60)
        assert not answers
        machine.configured()
    assert [answer.status for answer in answers] == [200]
