"""The line that says how long an action took."""

from __future__ import annotations

import re

import pytest

from vmmd.loop.took import took


def test_it_is_said_once_the_action_is_done() -> None:
    said: list[str] = []
    with took(said.append, "pause vm"):
        assert not said
    assert re.fullmatch(r"'pause vm' VMM action took \d+ us\.", said.pop())
    assert not said


def test_nothing_is_said_of_what_failed() -> None:
    said: list[str] = []
    with pytest.raises(OSError, match="no"), took(said.append, "x"):
        raise OSError("no")
    assert not said
