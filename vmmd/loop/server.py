"""Serves the API on a listening Unix socket.

Requests of one connection are answered in their order; across connections
first come, first served, one changing action at a time. A GET does not queue
behind an action that runs. The tasks live in the caller's nursery and nothing
here cancels one: a client that goes away mid-action changes nothing about it.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from vmmd.errors import ConfigError
from vmmd.http.connection import (
    TOO_MANY_CONNECTIONS,
    Connection,
    Request,
    WireReply,
)
from vmmd.http.intake import MAX_PAYLOAD_SIZE
from vmmd.rust import debug_str

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from vmmd.loop.logger import Logger

MAX_CONNECTIONS = 10
_RECEIVE_SIZE = 65_536
_METHOD_NAMES = {"GET": "Get", "PUT": "Put", "PATCH": "Patch", "DELETE": "Delete"}
_STATUS_TEXTS = {
    200: "200 OK",
    204: "204 No Content",
    400: "400 Bad Request",
    413: "413 Payload too large",
}


class Reply(Protocol):
    """What an action answers: 200 with a body, or 204 and None."""

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> object: ...


class Call(Protocol):
    """A request that has been understood."""

    @property
    def deprecation(self) -> str | None:
        """What the log says about deprecated use; None if there is none."""

    @property
    def timed_as(self) -> str | None:
        """The name under which the log gives its duration; None: it does not."""

    def perform(self) -> Awaitable[Reply]:
        """Carry it out. Raises ConfigError with the whole fault_message."""


class Server:
    """The API server. ``understand`` maps (method, path, body) to a Call.

    It raises ConfigError for a request that is none.
    """

    def __init__(
        self,
        listener: socket.socket,
        understand: Callable[[str, str, bytes | None], Call],
        logger: Logger,
        max_payload_size: int = MAX_PAYLOAD_SIZE,
    ) -> None:
        listener.setblocking(False)
        self._listener = trio.socket.from_stdlib_socket(listener)
        self._understand = understand
        self._max_payload_size = max_payload_size
        self._server_log = logger.channel("fc_api", "firecracker::api_server")
        self._log = logger.channel("fc_api", "firecracker::api_server::parsed_request")
        self._changing = trio.Lock()
        self._connections = 0
        self._unanswered = 0
        self._all_answered = trio.lowlevel.ParkingLot()

    async def serve(self, nursery: trio.Nursery) -> None:
        """Accept clients for ever; each is served by a task of ``nursery``."""
        self._server_log.info("API server started.")
        with self._listener:
            while True:
                client, _ = await self._listener.accept()
                if self._connections < MAX_CONNECTIONS:
                    self._connections += 1
                    nursery.start_soon(self._serve_client, client)
                else:
                    await _turn_away(client)

    async def answered(self) -> None:
        """Wait until every request that was begun has its reply sent."""
        while self._unanswered:
            await self._all_answered.park()

    async def _serve_client(self, client: trio.socket.SocketType) -> None:
        try:
            with client, suppress(OSError):  # gone; its actions are done all the same
                await self._converse(client, Connection(self._max_payload_size))
        finally:
            self._connections -= 1

    async def _converse(
        self, client: trio.socket.SocketType, connection: Connection
    ) -> None:
        while data := await client.recv(_RECEIVE_SIZE):
            connection.receive(data)
            while request := connection.next_request():
                await self._answer(client, connection, request)
                if connection.closing:
                    return

    async def _answer(
        self,
        client: trio.socket.SocketType,
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
        finally:
            self._unanswered -= 1
            if not self._unanswered:
                self._all_answered.unpark_all()

    async def _handle(self, connection: Connection, request: Request) -> bytes:
        """Understand and carry out one request; the bytes that answer it."""
        if self._log.informing:
            self._log.info(f"The API server received a {self._describe(request)}.")
        try:
            call = self._understand(request.method, request.target, request.body)
        except ConfigError as fault:
            self._server_log.error(fault.debug or str(fault))
            return connection.respond(fault.status, _fault_body(fault))
        status, body = await self._perform(request, call)
        if call.deprecation is not None:
            self._server_log.warn(call.deprecation)
        return connection.respond(status, body, deprecated=call.deprecation is not None)

    async def _perform(self, request: Request, call: Call) -> tuple[int, bytes | None]:
        started_ns = time.monotonic_ns()
        try:
            if request.method == "GET":
                reply = await call.perform()
            else:
                reply = await self._perform_in_turn(call)
        except ConfigError as fault:
            status = _STATUS_TEXTS.get(fault.status, str(fault.status))
            self._log.error(f"Received Error. Status code: {status}. Message: {fault}")
            return fault.status, _fault_body(fault)
        status = _STATUS_TEXTS.get(reply.status, str(reply.status))
        self._log.info(f"The request was executed successfully. Status code: {status}.")
        if call.timed_as is not None:
            self._server_log.info(
                f"'{call.timed_as}' API request took {_elapsed_us(started_ns)} us."
            )
        return reply.status, None if reply.body is None else _json(reply.body)

    async def _perform_in_turn(self, call: Call) -> Reply:
        try:
            self._changing.acquire_nowait()
        except trio.WouldBlock:
            await self._changing.acquire()
        try:
            return await call.perform()
        finally:
            self._changing.release()

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


async def _turn_away(client: trio.socket.SocketType) -> None:
    with client, suppress(OSError):  # it may be gone before it is told
        await _send(client, TOO_MANY_CONNECTIONS)


async def _send(client: trio.socket.SocketType, data: bytes) -> None:
    while data:
        data = data[await client.send(data) :]


def _elapsed_us(started_ns: int) -> int:
    return (time.monotonic_ns() - started_ns) // 1000


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "inconvertible to UTF-8"


def _fault_body(fault: ConfigError) -> bytes:
    return _json({"fault_message": str(fault)})


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
