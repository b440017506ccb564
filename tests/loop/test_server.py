"""The server over real Unix sockets, with a small API in the machine's place."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from vmmd.errors import ConfigError
from vmmd.loop.logger import DEBUG, Logger
from vmmd.loop.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

HEAD = "Server: Firecracker API\r\nConnection: keep-alive\r\n"
NO_CONTENT = f"HTTP/1.1 204 \r\n{HEAD}\r\n".encode()


def reply(status: int, body: str, extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} \r\n{HEAD}{extra}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def put(target: str, body: str = "{}", headers: str = "") -> bytes:
    size = len(body.encode())
    return f"PUT {target} HTTP/1.1\r\n{headers}Content-Length: {size}\r\n\r\n{body}".encode()


def get(target: str, headers: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\n{headers}\r\n".encode()


@dataclass
class Answer:
    status: int
    body: object = None


@dataclass
class FakeCall:
    """A call that does what its function does."""

    run: Callable[[], Awaitable[Answer]]
    deprecation: str | None = None
    timed_as: str | None = None

    async def perform(self) -> Answer:
        return await self.run()


@dataclass
class FakeApi:
    """``/slow`` waits for ``gate``; ``/fail`` fails; others answer at once."""

    begun: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    gate: trio.Event = field(default_factory=trio.Event)

    def understand(self, method: str, target: str, _body: bytes | None) -> FakeCall:
        if target == "/nowhere":
            fault = ConfigError("No such path.")
            fault.debug = 'NoSuchPath("nowhere")'
            raise fault
        return FakeCall(
            lambda: self._perform(method, target),
            deprecation="Old." if target == "/old" else None,
            timed_as="pause vm" if target == "/vm" else None,
        )

    async def _perform(self, method: str, target: str) -> Answer:
        self.begun.append(target)
        if target.startswith("/slow"):
            await self.gate.wait()
        self.done.append(target)
        if target == "/fail":
            raise ConfigError("It failed: é.")
        if target == "/large":
            error = ConfigError("Too large.")
            error.status = 413
            raise error
        if method == "GET":
            return Answer(200, {"path": target, "é": None})
        return Answer(204)


@dataclass
class Served:
    """A running server, its socket's path and its log."""

    api: FakeApi
    server: Server
    path: str
    log: Path
    nursery: trio.Nursery
    clients: list[trio.SocketStream] = field(default_factory=list)

    async def connect(self) -> trio.SocketStream:
        client = await trio.open_unix_socket(self.path)
        self.clients.append(client)
        return client

    def lines(self) -> list[str]:
        """The log's messages, without time and place."""
        return [line.split("] ", 1)[1] for line in self.log.read_text().splitlines()]


@pytest.fixture
async def served(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Served]:
    logger = Logger()
    logger.update(str(tmp_path / "log"), DEBUG)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "api"))
    listener.listen(128)
    api = FakeApi()
    server = Server(listener, api.understand, logger)
    nursery.start_soon(server.serve, nursery)
    served = Served(api, server, str(tmp_path / "api"), tmp_path / "log", nursery)
    yield served
    for client in served.clients:
        client.socket.close()
    nursery.cancel_scope.cancel()
    logger.close()


async def receive(stream: trio.SocketStream, count: int) -> bytes:
    """Exactly ``count`` bytes, or fewer at the end of the stream."""
    data = b""
    with trio.fail_after(5):
        while len(data) < count:
            more = await stream.receive_some(count - len(data))
            if not more:
                break
            data += more
    return data


async def expect(stream: trio.SocketStream, data: bytes) -> None:
    assert await receive(stream, len(data)) == data


async def test_answers(served: Served) -> None:
    client = await served.connect()
    for request, answer in (
        (put("/x"), NO_CONTENT),
        (get("/a"), reply(200, '{"path":"/a","é":null}')),
        (put("/fail"), reply(400, '{"fault_message":"It failed: é."}')),
        (put("/large"), reply(413, '{"fault_message":"Too large."}')),
        (put("/nowhere"), reply(400, '{"fault_message":"No such path."}')),
        (put("/old"), NO_CONTENT[:-2] + b"Deprecation: true\r\n\r\n"),
    ):
        await client.send_all(request)
        await expect(client, answer)


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    client = await served.connect()
    await client.send_all(get("/a") + put("/x") + get("/b"))
    expected = reply(200, '{"path":"/a","é":null}') + NO_CONTENT
    await expect(client, expected + reply(200, '{"path":"/b","é":null}'))


async def test_expect_continue_is_answered_before_the_body_comes(
    served: Served,
) -> None:
    client = await served.connect()
    request = put("/x", "{}", "Expect: 100-continue\r\n")
    await client.send_all(request[:-2])
    await expect(client, f"HTTP/1.1 100 \r\n{HEAD}\r\n".encode())
    assert served.api.begun == []
    await client.send_all(request[-2:])
    await expect(client, NO_CONTENT)


async def test_what_is_no_request_is_refused_and_the_connection_stays(
    served: Served,
) -> None:
    client = await served.connect()
    await client.send_all(b"BREW / HTTP/1.1\r\n\r\n")
    text = (
        '{ "error": "Invalid HTTP Method: Unsupported HTTP method.\n'
        'All previous unanswered requests will be dropped." }'
    )
    await expect(client, reply(400, text))
    await client.send_all(put("/x"))
    await expect(client, NO_CONTENT)


async def test_close_is_honoured_after_the_reply(served: Served) -> None:
    client = await served.connect()
    await client.send_all(put("/x", headers="Connection: close\r\n") + put("/y"))
    assert await receive(client, 4096) == NO_CONTENT
    assert served.api.done == ["/x"]


async def test_a_client_that_only_stops_sending_gets_its_answers(
    served: Served,
) -> None:
    client = await served.connect()
    await client.send_all(put("/x") * 2)
    await client.send_eof()
    assert await receive(client, 4096) == NO_CONTENT * 2


async def test_the_eleventh_connection_is_turned_away(served: Served) -> None:
    clients = [await served.connect() for _ in range(10)]
    for client in clients:
        await client.send_all(put("/x"))
        await expect(client, NO_CONTENT)
    eleventh = await served.connect()
    assert await receive(eleventh, 4096) == (
        b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n"
        b'Content-Length: 40\r\n\r\n{ "error": "Too many open connections" }'
    )
    await clients[3].aclose()
    await trio.testing.wait_all_tasks_blocked()
    twelfth = await served.connect()
    await twelfth.send_all(put("/x"))
    await expect(twelfth, NO_CONTENT)


async def test_changing_actions_take_turns_and_gets_do_not_wait(
    served: Served,
) -> None:
    slow, second, third, reader = [await served.connect() for _ in range(4)]
    for client, target in ((slow, "/slow"), (second, "/2"), (third, "/3")):
        await client.send_all(put(target))
        await trio.testing.wait_all_tasks_blocked()
    await reader.send_all(get("/a"))
    await expect(reader, reply(200, '{"path":"/a","é":null}'))
    assert served.api.begun == ["/slow", "/a"]
    served.api.gate.set()
    for client in (slow, second, third):
        await expect(client, NO_CONTENT)
    assert served.api.done == ["/a", "/slow", "/2", "/3"]


async def test_a_client_that_goes_away_changes_nothing(served: Served) -> None:
    client = await served.connect()
    await client.send_all(put("/slow"))
    await trio.testing.wait_all_tasks_blocked()
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    served.api.gate.set()
    other = await served.connect()
    await other.send_all(put("/x"))
    await expect(other, NO_CONTENT)
    assert served.api.done == ["/slow", "/x"]


async def test_answered_waits_for_replies_that_are_owed(served: Served) -> None:
    await served.server.answered()
    client = await served.connect()
    await client.send_all(put("/slow"))
    await trio.testing.wait_all_tasks_blocked()
    waited = trio.Event()

    async def wait() -> None:
        await served.server.answered()
        waited.set()

    served.nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not waited.is_set()
    served.api.gate.set()
    await expect(client, NO_CONTENT)
    with trio.fail_after(5):
        await waited.wait()


async def test_the_log_tells_each_request(served: Served) -> None:
    client = await served.connect()
    for request in (
        put("/x", '{"a":\n"é"}'),
        get("/a"),
        put("/mmds", '{"secret":1}'),
        put("/vm"),
        put("/fail"),
        put("/large"),
        put("/old"),
        put("/nowhere"),
        put("/cpu-config", "{}"),
        b"PUT /y HTTP/1.1\r\nContent-Length: 1\r\n\r\n\xff",
    ):
        await client.send_all(request)
        await receive(client, 12)
        await trio.testing.wait_all_tasks_blocked()
    lines = served.lines()
    duration = re.compile(r"Total previous API call duration: \d+ us\.")
    assert len(list(filter(duration.fullmatch, lines))) == 10
    seen = [
        re.sub(r"took \d+ us", "took N us", line)
        for line in lines
        if not duration.fullmatch(line)
    ]
    done = "The request was executed successfully. Status code: 204 No Content."
    received = "The API server received a Put request on"
    assert seen == [
        "API server started.",
        f'{received} "/x" with body "{{\\"a\\":\\n\\"é\\"}}".',
        done,
        'The API server received a Get request on "/a".',
        "The request was executed successfully. Status code: 200 OK.",
        f'{received} "/mmds".',
        done,
        f'{received} "/vm" with body "{{}}".',
        done,
        "'pause vm' API request took N us.",
        f'{received} "/fail" with body "{{}}".',
        "Received Error. Status code: 400 Bad Request. Message: It failed: é.",
        f'{received} "/large" with body "{{}}".',
        "Received Error. Status code: 413 Payload too large. Message: Too large.",
        f'{received} "/old" with body "{{}}".',
        done,
        "Old.",
        f'{received} "/nowhere" with body "{{}}".',
        'NoSuchPath("nowhere")',
        f'{received} "/cpu-config" with body "{{}}".',
        done,
        f'{received} "/y" with body "inconvertible to UTF-8".',
        done,
    ]


async def test_lines_of_the_api_thread(served: Served) -> None:
    client = await served.connect()
    await client.send_all(put("/x"))
    await expect(client, NO_CONTENT)
    for line in served.log.read_text().splitlines():
        assert " [anonymous-instance:fc_api] " in line


async def test_a_fault_message_is_json(served: Served) -> None:
    client = await served.connect()
    await client.send_all(put("/fail"))
    head, body = (
        await receive(client, len(reply(400, '{"fault_message":"It failed: é."}')))
    ).split(b"\r\n\r\n")
    assert json.loads(body) == {"fault_message": "It failed: é."}
    assert head.endswith(b"Content-Length: %d" % len(body))
