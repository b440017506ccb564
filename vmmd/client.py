"""The API from the caller's side: one call at a time on a Unix socket.

>>> with Client("/run/vmmd/web/api.sock") as vm:            # doctest: +SKIP
...     vm.pause()
...     vm.create_snapshot("/srv/web/vm.state", "/srv/web/vm.mem")
...     vm.resume()

Needs the standard library alone, and talks to Firecracker as well but for the
paths below ``/vmmd/``.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING

from vmmd.errors import HostError, VmmdError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from types import TracebackType
    from typing import Self

    from vmmd.actions import JsonValue

_PAUSED, _RESUMED = {"state": "Paused"}, {"state": "Resumed"}


class ApiError(VmmdError):
    """The VM refuses: ``str()`` is its fault message, ``status`` the HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """A VM's API. A context manager; the connection is made at the first call.

    ``timeout_s`` bounds each wait for the socket; None: as long as it takes,
    since a snapshot of much memory does take long.
    """

    def __init__(
        self, path: str | PathLike[str], timeout_s: float | None = None
    ) -> None:
        self.path = str(path)
        self._connection = _UnixConnection(self.path, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; a call after that makes another."""
        self._connection.close()

    def call(self, method: str, path: str, body: JsonValue = None) -> JsonValue:
        """The answer's JSON body, None if it has none; ``body`` None: send none.

        ApiError for any status from 300 on. HostError if nobody listens, or if the
        process goes away before it has answered.
        """
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, data, headers)
            reply = self._connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise HostError(f"{self.path}: {_reason(error)}") from error
        answer = _json(text)
        if reply.status >= http.HTTPStatus.MULTIPLE_CHOICES:
            raise ApiError(_fault(answer, text), reply.status)
        return answer

    def get(self, path: str) -> Mapping[str, JsonValue]:
        """The object that a path shows. Errors as :meth:`call`."""
        answer = self.call("GET", path)
        if not isinstance(answer, dict):
            raise HostError(f"{self.path}: GET {path} gave no object")
        return answer

    def state(self) -> str:
        """``Not started``, ``Running`` or ``Paused``."""
        return str(self.get("/")["state"])

    def start(self) -> None:
        """Boot the machine that was configured."""
        self.call("PUT", "/actions", {"action_type": "InstanceStart"})

    def pause(self) -> None:
        """Stop the guest; it may be stopped already."""
        self.call("PATCH", "/vm", {**_PAUSED})

    def resume(self) -> None:
        """Let the guest go on."""
        self.call("PATCH", "/vm", {**_RESUMED})

    def create_snapshot(
        self,
        state_path: str,
        memory_path: str,
        *,
        diff: bool = False,
        version: str | None = None,
    ) -> None:
        """Write a snapshot of a paused guest; the paths are the VM's, not ours.

        ``version``: the release to write it for, None for the newest.
        """
        body: dict[str, JsonValue] = {
            "snapshot_type": "Diff" if diff else "Full",
            "snapshot_path": state_path,
            "mem_file_path": memory_path,
        }
        if version is not None:
            body["version"] = version
        self.call("PUT", "/snapshot/create", body)

    def load_snapshot(
        self, state_path: str, memory_path: str, *, resume: bool = False
    ) -> None:
        """Load a snapshot into a process that has configured nothing."""
        backend = {"backend_path": memory_path, "backend_type": "File"}
        body: dict[str, JsonValue] = {
            "snapshot_path": state_path,
            "mem_backend": {**backend},
            "resume_vm": resume,
        }
        self.call("PUT", "/snapshot/load", body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such socket: is the VM running?"
        case ConnectionRefusedError():
            return "nobody listens there: the process that made it is gone"
        case TimeoutError():
            return "no answer in time"
        case http.client.HTTPException() | ConnectionError():
            return "the process went away before it answered"
        case _:
            return str(error)


def _json(text: bytes) -> JsonValue:
    try:
        answer: JsonValue = json.loads(text) if text else None
    except ValueError:
        return None
    return answer


def _fault(answer: JsonValue, text: bytes) -> str:
    """What went wrong, of an answer with ``fault_message`` or one without."""
    if isinstance(answer, dict) and isinstance(answer.get("fault_message"), str):
        return str(answer["fault_message"])
    return text.decode("utf-8", "replace").strip() or "refused without a reason"
