"""The monitor as a process, its console, and curl: what the scene is played with."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from demo.screen import Transcript, shorten

if TYPE_CHECKING:
    from types import TracebackType

DEADLINE_S = 120.0
_POLL_S = 0.005
_CALL_DEADLINE_S = 60
_LAST_WORDS_S = 5.0


class DemoError(Exception):
    """Something did not hold; the text says what."""


def show(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


class Monitor:
    """``firecracker`` of this virtual environment; killed at the end of the block."""

    def __init__(self, socket: Path) -> None:
        program = Path(sys.executable).with_name("firecracker")
        command = [str(program), "--api-sock", str(socket), "--id", "demo"]
        show(f"\n$ {shlex.join(command)}")
        self._socket = socket
        self._transcript = Transcript(show)
        self._process = subprocess.Popen(
            [*command, "--level", "Warning"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._last_words()
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _last_words(self) -> None:
        """Of a monitor that is about to end by itself: why."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)

    def wait_for_socket(self) -> None:
        """Wait until the API can be connected to; DemoError if it never can."""
        end = time.monotonic() + DEADLINE_S
        while not self._socket.is_socket():
            if self._process.poll() is not None or time.monotonic() > end:
                raise DemoError("the API's socket did not appear")
            time.sleep(_POLL_S)

    @property
    def length(self) -> int:
        """How much the guest has printed."""
        return self._transcript.length

    def type(self, line: str) -> None:
        """Type a line into the guest's console. DemoError if nobody reads it."""
        show(f"\n> {line}      (typed into the guest's console)")
        if self._process.stdin is None:
            raise RuntimeError("the console has no input")
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError as error:
            raise DemoError("the monitor has ended") from error

    def expect(self, text: str, after: int = 0) -> int:
        """Wait until the guest printed ``text`` past ``after``; where that ends."""
        at = self._transcript.wait(text, after, DEADLINE_S)
        if at is None:
            raise DemoError(f"the guest did not say {text!r}")
        return at

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        self._process.kill()
        self._reader.join()
        return self._process.wait()

    def finish(self) -> int:
        """Wait until the process has ended by itself; its exit status."""
        try:
            status = self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise DemoError("the monitor did not end") from error
        self._reader.join()
        return status

    def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("the console is not a pipe")
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while data := os.read(self._process.stdout.fileno(), 65536):
            self._transcript.add(decoder.decode(data))
        self._transcript.end()


class Curl:
    """Each call is shown, made by curl itself, and its answer shown."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __call__(self, method: str, path: str, body: object = None) -> str:
        """The answer's body. DemoError unless the status is 200 or 204."""
        command = ["curl", "--unix-socket", str(self._socket), "-X", method]
        command.append(f"http://localhost{path}")
        if body is not None:
            command += ["-d", json.dumps(body)]
        show(f"\n$ {shlex.join(command)}")
        quiet = ["-sS", "--max-time", str(_CALL_DEADLINE_S), "-w", "|%{http_code}"]
        done = subprocess.run([*command, *quiet], capture_output=True, text=True)
        if done.returncode != 0:
            raise DemoError(done.stderr.strip() or f"curl ended with {done.returncode}")
        text, _, status = done.stdout.rpartition("|")
        show(f"  {status} {shorten(text)}".rstrip())
        if status not in ("200", "204"):
            raise DemoError(f"{method} {path} answered {status}")
        return text
