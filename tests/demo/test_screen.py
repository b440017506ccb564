"""The guest's console as it is shown, and the table of times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.screen import GUEST, Times, Transcript, plain, shorten


def test_lines_are_shown_whole_when_they_end() -> None:
    shown: list[str] = []
    transcript = Transcript(shown.append)
    transcript.add("one\r\ntw")
    assert shown == [f"{GUEST}one"]
    transcript.add("o\r\n/ # \x1b[6n")
    assert shown == [f"{GUEST}one", f"{GUEST}two"]
    transcript.end()
    assert shown[2:] == [f"{GUEST}/ # "]


@given(st.lists(st.text(alphabet="ab \r\n", max_size=8)))
def test_how_it_comes_in_pieces_does_not_matter(pieces: list[str]) -> None:
    whole: list[str] = []
    parts: list[str] = []
    at_once, bit_by_bit = Transcript(whole.append), Transcript(parts.append)
    at_once.add("".join(pieces))
    for piece in pieces:
        bit_by_bit.add(piece)
    at_once.end()
    bit_by_bit.end()
    assert parts == whole
    assert bit_by_bit.length == len("".join(pieces))


def test_waiting_finds_what_comes_after_a_place_and_no_earlier() -> None:
    transcript = Transcript(lambda _line: None)
    transcript.add("ready ")
    after = transcript.length
    assert transcript.wait("ready", 0, seconds=0) == 5
    assert transcript.wait("ready", after, seconds=0) is None
    transcript.add("ready")
    assert transcript.wait("ready", after, seconds=0) == 11


def test_waiting_ends_with_the_guest() -> None:
    transcript = Transcript(lambda _line: None)
    transcript.end()
    assert transcript.wait("never", 0, seconds=60) is None


def test_control_sequences_are_left_out() -> None:
    assert plain("\x1bc\x1b[?7l\x1b[2Ja\x07 \x1b[6nb\r\n") == "a b\n"


def test_the_table_has_a_row_for_each_measure_outer_ones_first() -> None:
    times = Times()
    with times.measure("outer"), times.measure("  inner one"):
        pass
    with pytest.raises(ValueError, match="no"), times.measure("failed"):
        raise ValueError("no")
    assert [what for what, _ in times.rows] == ["outer", "  inner one"]
    first, second = times.table().splitlines()
    assert len(first) == len(second)
    assert first.endswith(" ms")


def test_long_answers_are_cut() -> None:
    assert shorten("x" * 300) == "x" * 300
    assert shorten("x" * 301).endswith("... (301 bytes)")
