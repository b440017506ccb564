"""The client against a socket that answers what a test wants."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from vmmd.client import ApiError, Client
from vmmd.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Answers:
    """Answers each request with the next of its texts; keeps what was asked."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.asked: list[tuple[str, object]] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener, connection.makefile("rb") as stream:
            for answer in self._answers:
                line = stream.readline().decode().removesuffix(" HTTP/1.1\r\n")
                length = 0
                while (header := stream.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = stream.read(length)
                self.asked.append((line, json.loads(body) if body else None))
                connection.sendall(answer)


def reply(status: str, body: object = None) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


DONE = reply("204 No Content")


@contextmanager
def answering(folder: Path, *answers: bytes) -> Iterator[tuple[Answers, Client]]:
    server = Answers(folder / "api", list(answers))
    with Client(folder / "api", timeout_s=5.0) as client:
        yield server, client
    server.thread.join(5)


def test_each_verb_asks_what_the_api_knows(tmp_path: Path) -> None:
    info = reply("200 OK", {"state": "Paused"})
    with answering(tmp_path, info, *[DONE] * 5) as (server, client):
        assert client.state() == "Paused"
        client.start()
        client.pause()
        client.resume()
        client.create_snapshot("/s", "/m", diff=True, version="1.5.0")
        client.load_snapshot("/s", "/m", resume=True)
    create = {
        "snapshot_type": "Diff",
        "snapshot_path": "/s",
        "mem_file_path": "/m",
        "version": "1.5.0",
    }
    load = {
        "snapshot_path": "/s",
        "mem_backend": {"backend_path": "/m", "backend_type": "File"},
        "resume_vm": True,
    }
    assert server.asked == [
        ("GET /", None),
        ("PUT /actions", {"action_type": "InstanceStart"}),
        ("PATCH /vm", {"state": "Paused"}),
        ("PATCH /vm", {"state": "Resumed"}),
        ("PUT /snapshot/create", create),
        ("PUT /snapshot/load", load),
    ]


def test_a_refusal_has_the_fault_message_and_the_next_call_goes_on(
    tmp_path: Path,
) -> None:
    refused = reply("400 Bad Request", {"fault_message": "No."})
    bare = reply("413 Payload Too Large")
    with answering(tmp_path, refused, bare, DONE) as (_, client):
        with pytest.raises(ApiError, match=r"^No\.$") as caught:
            client.pause()
        assert caught.value.status == 400
        with pytest.raises(ApiError, match="without a reason"):
            client.pause()
        client.pause()


def test_what_is_no_object_is_not_taken_for_one(tmp_path: Path) -> None:
    with (
        answering(tmp_path, reply("200 OK", [1])) as (_, client),
        pytest.raises(HostError, match="no object"),
    ):
        client.get("/")


def test_a_process_that_goes_away_before_it_answers(tmp_path: Path) -> None:
    with (
        answering(tmp_path, b"") as (_, client),
        pytest.raises(HostError, match="went away"),
    ):
        client.get("/")


def test_nobody_there_and_nobody_any_more(tmp_path: Path) -> None:
    path = tmp_path / "api"
    with Client(path) as client, pytest.raises(HostError, match="no such socket"):
        client.get("/")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with Client(path) as client, pytest.raises(HostError, match="nobody listens"):
        client.get("/")


def test_no_answer_in_time(tmp_path: Path) -> None:
    path = tmp_path / "api"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with (
            Client(path, timeout_s=0.01) as client,
            pytest.raises(HostError, match="in time"),
        ):
            client.get("/")
