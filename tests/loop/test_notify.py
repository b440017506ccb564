"""The notify protocol over real datagram sockets."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from vmmd.loop import notify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A service manager's socket, which $NOTIFY_SOCKET names."""
    abstract = f"@vmmd-test-{os.urandom(6).hex()}"
    name = str(tmp_path / "notify") if request.param == "path" else abstract
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(5)
        yield listening


def test_ready_and_stopping_are_told(manager: socket.socket) -> None:
    assert notify.ready("Listening on /run/x.")
    assert manager.recv(4096) == b"READY=1\nSTATUS=Listening on /run/x."
    assert notify.stopping("Powering off.")
    assert manager.recv(4096) == b"STOPPING=1\nSTATUS=Powering off."


def test_a_manager_that_does_not_read_stops_nothing(manager: socket.socket) -> None:
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sent = [notify.notify("STATUS=x") for _ in range(1000)]
    assert sent[0]
    assert not sent[-1]


@pytest.mark.parametrize("name", [None, "", "relative", "/nowhere/notify"])
def test_no_manager_is_no_error(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify.ready("x")
