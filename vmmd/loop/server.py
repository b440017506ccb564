"""Serves the API on a listening Unix socket.

Requests of one connection are answered in their order; across connections
first come, first served, one changing action at a time. A GET does not queue
behind an action that runs. The tasks live in the caller's nursery and nothing
here cancels one: a client that goes away mid-action changes nothing about it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from vmmd.actions import CreateSnapshot, LoadSnapshot, PatchVm
from vmmd.config import VmStateChange
from vmmd.errors import ConfigError
from vmmd.http import render, routes
from vmmd.http.connection import (
    TOO_MANY_CONNECTIONS,
    Connection,
    Request,
    WireReply,
)
from vmmd.http.intake import MAX_PAYLOAD_SIZE
from vmmd.http.tally import Tally
from vmmd.rust import debug_str, io_error

if TYPE_CHECKING:
    import socket

    from vmmd.actions import Action, Answer
    from vmmd.loop.logger import Logger

MAX_CONNECTIONS = 10
CLOSE_GRACE_S = 0.3
"""How long a connection outlives a reply to ``Connection: close``.

Firecracker ignores that header, and there are clients that send it always and
go on; who means it waits this long for the end.
"""
_RECEIVE_SIZE = 65_536
_RETRY_S = 0.1
_METHOD_NAMES = {"GET": "Get", "PUT": "Put", "PATCH": "Patch", "DELETE": "Delete"}
_STATUS_TEXTS = {
    200: "200 OK",
    204: "204 No Content",
    400: "400 Bad Request",
    413: "413 Payload too large",
}


class _Gone(Exception):
    """The client has gone away. An OSError of an action is none of these."""


class Performer(Protocol):
    """What carries out the actions that requests ask for."""

    async def perform(self, action: Action) -> Answer:
        """Carry it out. Raises ConfigError with the whole fault_message."""


class Server:
    """The API server: requests in, actions to ``performer``, answers back."""

    def __init__(
        self,
        listener: socket.socket,
        performer: Performer,
        logger: Logger,
        max_payload_size: int = MAX_PAYLOAD_SIZE,
        tally: Tally | None = None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._performer = performer
        self._max_payload_size = max_payload_size
        self._server_log = logger.channel("fc_api", "firecracker::api_server")
        self._log = logger.channel("fc_api", "firecracker::api_server::parsed_request")
        self._tally = Tally() if tally is None else tally
        self._changing = trio.Lock()
        self._connections = 0
        self._unanswered = 0
        self._all_answered = trio.lowlevel.ParkingLot()
        self.answered_once = trio.Event()

    async def serve(
        self,
        nursery: trio.Nursery,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept clients for ever; each is served by a task of ``nursery``."""
        self._server_log.info("API server started.")
        task_status.started()
        with self._listener:
            while True:
                client = await self._accept()
                if self._connections < MAX_CONNECTIONS:
                    self._connections += 1
                    nursery.start_soon(self._serve_client, client)
                else:
                    await _turn_away(client)

    async def _accept(self) -> socket.socket:
        """The next client. Out of descriptors, it waits for some to be freed."""
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                self._server_log.error(
                    "API Server error on retrieving incoming request: IO error: "
                    f"{io_error(error)}"
                )
                await trio.sleep(_RETRY_S)
                continue
            client.setblocking(False)
            return client

    async def answered(self) -> None:
        """Wait until every request that was begun has its reply sent."""
        while self._unanswered:
            await self._all_answered.park()

    async def _serve_client(self, client: socket.socket) -> None:
        try:
            with client, suppress(_Gone):  # its actions are done all the same
                await self._converse(client, Connection(self._max_payload_size))
        finally:
            self._connections -= 1

    async def _converse(self, client: socket.socket, connection: Connection) -> None:
        while data := await _next_bytes(client, connection.closing):
            connection.receive(data)
            while request := connection.next_request():
                await self._answer(client, connection, request)

    async def _answer(
        self,
        client: socket.socket,
        connection: Connection,
        request: Request | WireReply,
    ) -> None:
        if isinstance(request, WireReply):
            await _send(client, request.data)
            return
        self._unanswered += 1
        try:
            started_ns = time.monotonic_ns()
            reply = await self._handle(connection, request)
            if self._server_log.debugging:
                duration_us = _elapsed_us(started_ns)
                self._server_log.debug(
                    f"Total previous API call duration: {duration_us} us."
                )
            await _send(client, reply)
            self.answered_once.set()
        finally:
            self._unanswered -= 1
            if not self._unanswered:
                self._all_answered.unpark_all()

    async def _handle(self, connection: Connection, request: Request) -> bytes:
        """Understand and carry out one request; the bytes that answer it."""
        if self._log.informing:
            self._log.info(f"The API server received a {self._describe(request)}.")
        self._tally.request(request.method, request.target)
        try:
            asked = routes.parse(request.method, request.target, request.body)
        except routes.ApiFault as fault:
            self._tally.refused(request.method, request.target)
            self._server_log.error(fault.debug)
            return connection.respond(fault.status, render.fault(str(fault)))
        status, body = await self._perform(asked.action, request.method == "GET")
        old = asked.deprecation
        if old is not None:
            self._tally.deprecated()
            self._server_log.warn(old)
        return connection.respond(status, body, deprecated=old is not None)

    async def _perform(self, action: Action, reads: bool) -> tuple[int, bytes | None]:
        """Carry an action out; the status and body that tell how it went."""
        started_ns = time.monotonic_ns()
        try:
            if reads:
                answer = await self._performer.perform(action)
            else:
                answer = await self._perform_in_turn(action)
        except ConfigError as fault:
            status = _STATUS_TEXTS[fault.status]
            self._log.error(f"Received Error. Status code: {status}. Message: {fault}")
            return fault.status, render.fault(str(fault))
        status = _STATUS_TEXTS[answer.status]
        self._log.info(f"The request was executed successfully. Status code: {status}.")
        name = timed_as(action)
        if name is not None:
            duration_us = _elapsed_us(started_ns)
            self._tally.took(name, duration_us, in_turn=False)
            self._server_log.info(f"'{name}' API request took {duration_us} us.")
        return answer.status, render.body(answer) or None

    async def _perform_in_turn(self, action: Action) -> Answer:
        try:
            self._changing.acquire_nowait()
        except trio.WouldBlock:
            await self._changing.acquire()
        started_ns = time.monotonic_ns()
        try:
            answer = await self._performer.perform(action)
        finally:
            self._changing.release()
        if (name := timed_as(action)) is not None:
            self._tally.took(name, _elapsed_us(started_ns), in_turn=True)
        return answer

    def _describe(self, request: Request) -> str:
        """The request for the log: metadata and CPU templates are not shown."""
        text = f"{_METHOD_NAMES[request.method]} request on {debug_str(request.target)}"
        if request.body is None or request.target == "/mmds":
            return text
        if request.target == "/cpu-config" and not self._log.debugging:
            return (
                f"{text}. To view the CPU template received by the API, "
                "configure log-level to DEBUG"
            )
        return f"{text} with body {debug_str(_text(request.body))}"


def timed_as(action: Action) -> str | None:
    """The name under which the log gives an action's duration, if it does."""
    match action:
        case PatchVm(state=VmStateChange.PAUSED):
            return "pause vm"
        case PatchVm():
            return "resume vm"
        case CreateSnapshot(params):
            return f"create {params.snapshot_type.lower()} snapshot"
        case LoadSnapshot():
            return "load snapshot"
        case _:
            return None


async def _turn_away(client: socket.socket) -> None:
    with client, suppress(_Gone):  # it may be before it is told
        await _send(client, TOO_MANY_CONNECTIONS)


async def _next_bytes(client: socket.socket, closing: bool) -> bytes:
    """What the client sends next; empty if it is time to close."""
    if not closing:
        return await _receive(client)
    with trio.move_on_after(CLOSE_GRACE_S):
        return await _receive(client)
    return b""


async def _receive(client: socket.socket) -> bytes:
    """What has come, once something has; empty at the end. A checkpoint."""
    waited = False
    while True:
        try:
            data = client.recv(_RECEIVE_SIZE)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(client)
            waited = True
            continue
        except OSError as error:
            raise _Gone from error
        if not waited:
            await trio.lowlevel.checkpoint()
        return data


async def _send(client: socket.socket, data: bytes) -> None:
    """Send all of it. No checkpoint while the client reads: that costs 10 µs."""
    while data:
        try:
            data = data[client.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(client)
        except OSError as error:
            raise _Gone from error


def _elapsed_us(started_ns: int) -> int:
    return (time.monotonic_ns() - started_ns) // 1000


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "inconvertible to UTF-8"
