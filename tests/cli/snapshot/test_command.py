"""What the commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmmd.cli.snapshot.command import Command, Meter, show, size_text
from vmmd.errors import SnapshotError

if TYPE_CHECKING:
    import argparse


def test_what_a_file_holds_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    show('boot_args = "a\x1b[2Jb\x9bc\nd\udc80é"')
    assert capsys.readouterr().out == 'boot_args = "a\\x1b[2Jb\\x9bc\\nd\\udc80é"\n'


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 KiB"), (4096, "4 KiB"), (22_011, "21.5 KiB"), (3 << 19, "1.5 MiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_meter_in_a_log_is_a_line_at_a_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    meter = Meter("reading", every_s=0.0)
    meter(0, 0)
    meter(1 << 20, 4 << 20)
    meter.close()
    assert capsys.readouterr().err == "reading: 25 % of 4 MiB\n"
    Meter("reading")(1, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SnapshotError("s: bad"), "vmmd snapshot x: s: bad\n"),
        (OSError(28, "No space left on device", "/m"), "/m: No space left on device\n"),
    ],
)
def test_an_error_is_one_line_and_two(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def work(_arguments: argparse.Namespace) -> int:
        raise error

    assert Command("x", "about", "no").run([], work) == 2
    errors = capsys.readouterr().err
    assert errors.endswith(line)
    assert errors.count("\n") == 1


def test_a_bug_is_no_line() -> None:
    def work(_arguments: argparse.Namespace) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        Command("x", "about", "no").run([], work)
