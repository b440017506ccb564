"""The server over real Unix sockets, with a small API in the machine's place."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from vmmd.actions import NO_CONTENT as DONE
from vmmd.actions import (
    Action,
    Answer,
    CreateSnapshot,
    FlushMetrics,
    GetInstanceInfo,
    InstanceStart,
    LoadSnapshot,
    PatchVm,
    PutMmds,
)
from vmmd.config import VmStateChange
from vmmd.errors import ConfigError
from vmmd.http import routes
from vmmd.loop.logger import DEBUG, Logger
from vmmd.loop.server import CLOSE_GRACE_S, Server, timed_as

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

HEAD = "Server: Firecracker API\r\nConnection: keep-alive\r\n"
NO_CONTENT = f"HTTP/1.1 204 \r\n{HEAD}\r\n".encode()


def reply(status: int, body: str, extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} \r\n{HEAD}{extra}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def put(target: str, body: str = "{}", headers: str = "") -> bytes:
    size = len(body.encode())
    return f"PUT {target} HTTP/1.1\r\n{headers}Content-Length: {size}\r\n\r\n{body}".encode()


def patch(target: str, body: str) -> bytes:
    return put(target, body).replace(b"PUT", b"PATCH", 1)


def get(target: str, headers: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\n{headers}\r\n".encode()


MACHINE = '{"vcpu_count":1,"mem_size_mib":64}'
PUT_MACHINE = put("/machine-config", MACHINE)
OLD_MACHINE = put("/machine-config", MACHINE[:-1] + ',"cpu_template":"T2"}')
PAUSE = patch("/vm", '{"state":"Paused"}')
RESUME = patch("/vm", '{"state":"Resumed"}')
START = put("/actions", '{"action_type":"InstanceStart"}')
START_REPLY = reply(400, '{"fault_message":"It failed: é."}')
INFO = Answer(200, {"id": "x", "é": None})
INFO_REPLY = reply(200, '{"id":"x","é":null}')


@dataclass
class FakeMachine:
    """Pausing waits for ``gate``; starting and metadata fail; all else is well."""

    begun: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    gate: trio.Event = field(default_factory=trio.Event)

    async def perform(self, action: Action) -> Answer:
        name = type(action).__name__
        self.begun.append(name)
        if isinstance(action, PatchVm) and action.state is VmStateChange.PAUSED:
            await self.gate.wait()
        self.done.append(name)
        if isinstance(action, InstanceStart):
            raise ConfigError("It failed: é.")
        if isinstance(action, PutMmds):
            error = ConfigError("Too large.")
            error.status = 413
            raise error
        return INFO if isinstance(action, GetInstanceInfo) else DONE


@dataclass
class Served:
    """A running server, its socket's path and its log."""

    machine: FakeMachine
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
def logger(tmp_path: Path) -> Iterator[Logger]:
    logger = Logger()
    logger.update(str(tmp_path / "log"), DEBUG)
    yield logger
    logger.close()


@pytest.fixture
async def served(
    tmp_path: Path, nursery: trio.Nursery, logger: Logger
) -> AsyncIterator[Served]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "api"))
    listener.listen(128)
    machine = FakeMachine()
    server = Server(listener, machine, logger)
    nursery.start_soon(server.serve, nursery)
    served = Served(machine, server, str(tmp_path / "api"), tmp_path / "log", nursery)
    yield served
    for client in served.clients:
        await client.aclose()
    nursery.cancel_scope.cancel()


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
    no_path = '{"fault_message":"Invalid request method and/or path: PUT x."}'
    for request, answer in (
        (PUT_MACHINE, NO_CONTENT),
        (get("/"), INFO_REPLY),
        (START, START_REPLY),
        (put("/mmds"), reply(413, '{"fault_message":"Too large."}')),
        (put("/x"), reply(400, no_path)),
        (OLD_MACHINE, NO_CONTENT[:-2] + b"Deprecation: true\r\n\r\n"),
    ):
        await client.send_all(request)
        await expect(client, answer)


async def test_the_first_answer_is_told_of_once_it_is_sent(served: Served) -> None:
    client = await served.connect()
    await trio.testing.wait_all_tasks_blocked()
    assert not served.server.answered_once.is_set()
    await client.send_all(get("/"))
    await expect(client, INFO_REPLY)
    assert served.server.answered_once.is_set()


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    client = await served.connect()
    await client.send_all(get("/") + PUT_MACHINE + START)
    await expect(client, INFO_REPLY + NO_CONTENT + START_REPLY)


async def test_expect_continue_is_answered_before_the_body_comes(
    served: Served,
) -> None:
    client = await served.connect()
    request = put("/machine-config", MACHINE, "Expect: 100-continue\r\n")
    await client.send_all(request[:-2])
    await expect(client, f"HTTP/1.1 100 \r\n{HEAD}\r\n".encode())
    assert served.machine.begun == []
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
    await client.send_all(PUT_MACHINE)
    await expect(client, NO_CONTENT)


CLOSING = PUT_MACHINE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def test_close_is_honoured_after_the_reply(served: Served) -> None:
    client = await served.connect()
    await client.send_all(CLOSING)
    assert await receive(client, 4096) == NO_CONTENT


async def test_a_client_that_goes_on_after_close_is_served(served: Served) -> None:
    client = await served.connect()
    for request in (CLOSING, CLOSING * 2, PUT_MACHINE):
        await client.send_all(request)
        await expect(client, NO_CONTENT * request.count(b"PUT"))
    with trio.move_on_after(2 * CLOSE_GRACE_S) as scope:
        await client.receive_some(1)
    assert scope.cancelled_caught  # the last request did not ask to close


async def test_a_client_that_only_stops_sending_gets_its_answers(
    served: Served,
) -> None:
    client = await served.connect()
    await client.send_all(PUT_MACHINE * 2)
    await client.send_eof()
    assert await receive(client, 4096) == NO_CONTENT * 2


async def test_the_payload_limit(served: Served) -> None:
    client = await served.connect()
    size = 51_201
    await client.send_all(f"PUT /x HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode())
    assert b"size 51201 is larger than the limit of 51200 " in await receive(
        client, 250
    )


async def test_the_eleventh_connection_is_turned_away(served: Served) -> None:
    clients = [await served.connect() for _ in range(10)]
    for client in clients:
        await client.send_all(PUT_MACHINE)
        await expect(client, NO_CONTENT)
    eleventh = await served.connect()
    assert await receive(eleventh, 4096) == (
        b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n"
        b'Content-Length: 40\r\n\r\n{ "error": "Too many open connections" }'
    )
    await clients[3].aclose()
    await trio.testing.wait_all_tasks_blocked()
    twelfth = await served.connect()
    await twelfth.send_all(PUT_MACHINE)
    await expect(twelfth, NO_CONTENT)


async def test_changing_actions_take_turns_and_gets_do_not_wait(
    served: Served,
) -> None:
    slow, second, third, reader = [await served.connect() for _ in range(4)]
    for client, request in ((slow, PAUSE), (second, PUT_MACHINE), (third, START)):
        await client.send_all(request)
        await trio.testing.wait_all_tasks_blocked()
    await reader.send_all(get("/"))
    await expect(reader, INFO_REPLY)
    assert served.machine.begun == ["PatchVm", "GetInstanceInfo"]
    served.machine.gate.set()
    await expect(slow, NO_CONTENT)
    await expect(second, NO_CONTENT)
    await expect(third, START_REPLY)
    in_turn = ["PatchVm", "PutMachineConfig", "InstanceStart"]
    assert served.machine.done == ["GetInstanceInfo", *in_turn]


async def test_a_client_that_goes_away_changes_nothing(served: Served) -> None:
    client = await served.connect()
    await client.send_all(PAUSE)
    await trio.testing.wait_all_tasks_blocked()
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    served.machine.gate.set()
    other = await served.connect()
    await other.send_all(PUT_MACHINE)
    await expect(other, NO_CONTENT)
    assert served.machine.done == ["PatchVm", "PutMachineConfig"]


async def test_answered_waits_for_replies_that_are_owed(served: Served) -> None:
    await served.server.answered()
    client = await served.connect()
    await client.send_all(PAUSE)
    await trio.testing.wait_all_tasks_blocked()
    waited = trio.Event()

    async def wait() -> None:
        await served.server.answered()
        waited.set()

    served.nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not waited.is_set()
    served.machine.gate.set()
    await expect(client, NO_CONTENT)
    with trio.fail_after(5):
        await waited.wait()


async def test_a_reply_that_is_not_read_holds_up_nobody_else(served: Served) -> None:
    deaf, other = await served.connect(), await served.connect()

    async def send_for_ever() -> None:
        with suppress(trio.ClosedResourceError):
            while True:  # until neither side has room for more
                await deaf.send_all(get("/") * 100)

    served.nursery.start_soon(send_for_ever)
    await trio.testing.wait_all_tasks_blocked()
    await other.send_all(PUT_MACHINE)
    await expect(other, NO_CONTENT)


async def test_the_log_tells_each_request(served: Served) -> None:
    client = await served.connect()
    for request in (
        put("/machine-config", '{"vcpu_count":1,\n"é":2}'),
        get("/"),
        put("/mmds", '{"secret":1}'),
        RESUME,
        START,
        OLD_MACHINE,
        put("/cpu-config", "{}"),
        b"PUT /y HTTP/1.1\r\nContent-Length: 1\r\n\r\n\xff",
        b"DELETE /drives/a HTTP/1.1\r\n\r\n",
    ):
        await client.send_all(request)
        await receive(client, 12)
        await trio.testing.wait_all_tasks_blocked()
    lines = served.lines()
    duration = re.compile(r"Total previous API call duration: \d+ us\.")
    assert len(list(filter(duration.fullmatch, lines))) == 9
    seen = [
        re.sub(r"took \d+ us", "took N us", line)
        for line in lines
        if not duration.fullmatch(line)
    ]
    done = "The request was executed successfully. Status code: 204 No Content."
    received = "The API server received a Put request on"
    unknown = "unknown field `é`, expected one of `vcpu_count`, `mem_size_mib`, `smt`"
    unknown += ", `cpu_template`, `track_dirty_pages`, `huge_pages`"
    old = MACHINE[:-1].replace('"', '\\"') + ',\\"cpu_template\\":\\"T2\\"}'
    state = '{\\"state\\":\\"Resumed\\"}'
    assert seen == [
        "API server started.",
        f'{received} "/machine-config" with body '
        '"{\\"vcpu_count\\":1,\\n\\"é\\":2}".',
        f'SerdeJson(Error("{unknown}", line: 2, column: 4))',
        'The API server received a Get request on "/".',
        "The request was executed successfully. Status code: 200 OK.",
        f'{received} "/mmds".',
        "Received Error. Status code: 413 Payload too large. Message: Too large.",
        f'The API server received a Patch request on "/vm" with body "{state}".',
        done,
        "'resume vm' API request took N us.",
        f'{received} "/actions" with body "{{\\"action_type\\":\\"InstanceStart\\"}}".',
        "Received Error. Status code: 400 Bad Request. Message: It failed: é.",
        f'{received} "/machine-config" with body "{old}".',
        done,
        "PUT /machine-config: cpu_template field is deprecated.",
        f'{received} "/cpu-config" with body "{{}}".',
        done,
        f'{received} "/y" with body "inconvertible to UTF-8".',
        'InvalidPathMethod("y", Put)',
        'The API server received a Delete request on "/drives/a".',
        done,
    ]


async def test_a_cpu_template_is_shown_only_for_debugging(
    served: Served, logger: Logger
) -> None:
    logger.update()
    client = await served.connect()
    await client.send_all(put("/cpu-config", "{}"))
    await expect(client, NO_CONTENT)
    assert served.lines()[1] == (
        'The API server received a Put request on "/cpu-config". To view the CPU '
        "template received by the API, configure log-level to DEBUG."
    )


async def test_lines_are_the_api_threads(served: Served) -> None:
    client = await served.connect()
    await client.send_all(PUT_MACHINE)
    await expect(client, NO_CONTENT)
    for line in served.log.read_text().splitlines():
        assert " [anonymous-instance:fc_api] " in line


@pytest.mark.parametrize(
    ("target", "body", "name"),
    [
        ("/vm", '{"state":"Paused"}', "pause vm"),
        ("/vm", '{"state":"Resumed"}', "resume vm"),
        ("/snapshot/load", "", "load snapshot"),
        ("/snapshot/create", "Full", "create full snapshot"),
        ("/snapshot/create", "Diff", "create diff snapshot"),
        ("/actions", '{"action_type":"FlushMetrics"}', None),
    ],
)
def test_actions_whose_duration_is_logged(
    target: str, body: str, name: str | None
) -> None:
    paths = '"snapshot_path":"s","mem_file_path":"m"'
    match target:
        case "/snapshot/create":
            body = f'{{"snapshot_type":"{body}",{paths}}}'
        case "/snapshot/load":
            body = f"{{{paths}}}"
    method = "PATCH" if target == "/vm" else "PUT"
    action = routes.parse(method, target, body.encode()).action
    assert isinstance(action, PatchVm | LoadSnapshot | CreateSnapshot | FlushMetrics)
    assert timed_as(action) == name


async def test_a_bug_in_an_action_is_no_client_that_went_away(
    tmp_path: Path, logger: Logger
) -> None:
    class Broken:
        async def perform(self, action: Action) -> Answer:
            raise OSError(5, type(action).__name__)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "broken"))
    listener.listen()
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="GetInstanceInfo")):
        async with trio.open_nursery() as nursery:
            server = Server(listener, Broken(), logger)
            await nursery.start(server.serve, nursery)
            client = await trio.open_unix_socket(str(tmp_path / "broken"))
            async with client:
                await client.send_all(get("/"))
                await trio.sleep_forever()
