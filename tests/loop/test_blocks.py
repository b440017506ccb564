"""Memory files block by block."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.memory_files import FileModel, nobody, written
from vmmd.errors import HostError
from vmmd.loop.blocks import Block, runs, verify
from vmmd.state.manifest import BLOCK_SIZE, PAGE_SIZE

if TYPE_CHECKING:
    from pathlib import Path

MODEL = FileModel(blocks=3, pages={0: 1, 1: 2, 511: 3, 512: 4, 1535: 5})


@given(st.integers(0, (1 << 512) - 1))
def test_runs_are_the_bits_in_order(pages: int) -> None:
    found = list(runs(pages))
    assert sum((1 << count) - 1 << first for first, count in found) == pages
    ends = [first + count for first, count in found]
    assert all(end < first for end, (first, _) in zip(ends, found[1:], strict=False))


def test_a_whole_file_verifies(tmp_path: Path) -> None:
    with written(tmp_path / "m", MODEL) as fd:
        seen: list[tuple[int, int]] = []
        found = verify(fd, "m", MODEL.manifest, lambda *at: seen.append(at))
    assert (found.wrong, found.stray, found.unknown) == ((), (), ())
    assert seen[0] == (0, MODEL.size)
    assert seen[-1] == (MODEL.size, MODEL.size)


@pytest.mark.parametrize(("page", "wrong", "stray"), [(1, (0,), ()), (700, (), (1,))])
def test_one_byte_that_is_not_as_it_was(
    tmp_path: Path, page: int, wrong: tuple[int, ...], stray: tuple[int, ...]
) -> None:
    with written(tmp_path / "m", MODEL) as fd:
        os.pwrite(fd, b"\xee", page * PAGE_SIZE + 17)
        found = verify(fd, "m", MODEL.manifest, nobody)
    assert (found.wrong, found.stray) == (wrong, stray)


def test_zeros_that_are_data_in_the_file_are_not_stray(tmp_path: Path) -> None:
    with written(tmp_path / "m", MODEL) as fd:
        os.pwrite(fd, bytes(PAGE_SIZE), 700 * PAGE_SIZE)
        found = verify(fd, "m", MODEL.manifest, nobody)
    assert (found.wrong, found.stray) == ((), ())


def test_a_diff_says_nothing_of_the_pages_it_has_not(tmp_path: Path) -> None:
    diff = FileModel(MODEL.blocks, MODEL.pages, parent_id="p")
    with written(tmp_path / "m", diff) as fd:
        os.pwrite(fd, b"\xee", 700 * PAGE_SIZE)
        assert verify(fd, "m", diff.manifest, nobody).stray == ()


def test_a_file_that_is_too_short(tmp_path: Path) -> None:
    with written(tmp_path / "m", MODEL) as fd:
        os.ftruncate(fd, BLOCK_SIZE)
        with pytest.raises(HostError, match="m: has become shorter"):
            Block().read(fd, 1, 1, "m")
