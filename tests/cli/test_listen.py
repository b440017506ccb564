"""The API socket: there and listening at once, nothing overwritten."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from vmmd.cli.listen import listen
from vmmd.errors import ExitError

if TYPE_CHECKING:
    from pathlib import Path

IN_USE = (
    "RunWithApiError error: Failed to open the API socket at: {}. Check that it is "
    "not already used."
)
CANNOT_RUN = "RunWithApiError error: Failed to bind and run the HTTP server: IO error: "


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_it_listens_and_leaves_nothing_else(tmp_path: Path) -> None:
    server = listen(str(tmp_path / "api"))
    try:
        connect(str(tmp_path / "api"))
        assert os.listdir(tmp_path) == ["api"]
        assert not os.get_inheritable(server.fileno())
    finally:
        server.close()


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = listen("api")
    try:
        connect("api")
    finally:
        server.close()


def test_a_path_with_no_room_for_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    path = f"{'d' * 100}/api.so"
    assert len(path) == 107
    server = listen(path)
    try:
        connect(path)
        assert os.listdir(folder) == ["api.so"]
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["file", "socket", "dangling"])
def test_what_exists_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "busy"
    match kind:
        case "file":
            path.write_text("x")
        case "socket":
            listen(str(path)).close()
        case _:
            path.symlink_to("nowhere")
    before = os.lstat(path)
    with pytest.raises(ExitError) as caught:
        listen(str(path))
    assert str(caught.value) == IN_USE.format(path)
    assert caught.value.debug == f'RunWithApi(FailedToBindSocket("{path}"))'
    assert caught.value.exit_code == 1
    assert os.lstat(path) == before


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("no/dir/s", "No such file or directory (os error 2)", "NotFound"),
        ("file/s", "Not a directory (os error 20)", "NotADirectory"),
    ],
)
def test_a_folder_that_is_none(tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExitError) as caught:
        listen(str(tmp_path / name))
    assert str(caught.value) == CANNOT_RUN + text
    assert caught.value.debug.startswith(
        "RunWithApi(FailedToBindAndRunHttpServer(IOError(Os { code: "
    )
    assert f"kind: {kind}, " in caught.value.debug


@pytest.mark.parametrize("path", ["s" * 108, "é" * 54])
def test_a_path_that_is_too_long(path: str) -> None:
    with pytest.raises(ExitError) as caught:
        listen(path)
    assert str(caught.value) == CANNOT_RUN + "path must be shorter than SUN_LEN"
    assert caught.value.debug == (
        "RunWithApi(FailedToBindAndRunHttpServer(IOError(Error { kind: InvalidInput, "
        'message: "path must be shorter than SUN_LEN" })))'
    )
