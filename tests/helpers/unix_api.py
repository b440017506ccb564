"""The API from a client's side: one call at a time on a Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONNECT_DEADLINE_S = 30.0
ANSWER_DEADLINE_S = 120.0  # a snapshot is long in an emulated host


class UnixApi(http.client.HTTPConnection):
    """HTTP over a Unix socket, kept open."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect as soon as somebody listens."""
        end = time.monotonic() + CONNECT_DEADLINE_S
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(ANSWER_DEADLINE_S)
            try:
                self.sock.connect(str(self._path))
            except OSError:
                self.sock.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)  # nothing tells that another process listens
            else:
                return

    def call(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """Status and JSON body (None if empty) of one request; TimeoutError without."""
        data = None if body is None else json.dumps(body)
        self.request(method, path, data, {"Content-Type": "application/json"})
        reply = self.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None

    def ok(self, method: str, path: str, body: object = None) -> object:
        """The body of a request that must succeed."""
        status, answer = self.call(method, path, body)
        assert status in (200, 204), f"{method} {path}: {status} {answer}"
        return answer
