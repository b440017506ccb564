"""The API as people try it first: curl on the Unix socket."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.helpers.daemon import Daemon, daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNKNOWN = (
    "An error occurred when deserializing the json body of a request: unknown field "
    "`cpus`, expected one of `vcpu_count`, `mem_size_mib`, `smt`, `cpu_template`, "
    "`track_dirty_pages`, `huge_pages` at line 1 column 7."
)
TABLE = [
    ("GET", "/version", None, 200, {"firecracker_version": "1.16.1"}),
    ("PUT", "/machine-config", '{"vcpu_count":2,"mem_size_mib":256}', 204, None),
    ("PUT", "/machine-config", '{"cpus":2}', 400, {"fault_message": UNKNOWN}),
    (
        "GET",
        "/nowhere",
        None,
        400,
        {"fault_message": "Invalid request method and/or path: GET nowhere."},
    ),
    (
        "PUT",
        "/drives/a-b",
        "{}",
        400,
        {
            "fault_message": "API Resource IDs can only contain alphanumeric "
            "characters and underscores."
        },
    ),
    ("PUT", "/logger", "{}", 204, None),
]


@pytest.fixture(scope="module")
def vmm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One process for the whole table."""
    with daemon(tmp_path_factory.mktemp("curl")) as running:
        running.api.ok("GET", "/")
        yield running


def curl(vmm: Daemon, *arguments: str) -> str:
    """What curl prints."""
    command = ["curl", "-sS", "--unix-socket", str(vmm.sock), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(("method", "path", "body", "status", "answer"), TABLE)
def test_curl_gets_the_answer(
    vmm: Daemon,
    method: str,
    path: str,
    body: str | None,
    status: int,
    answer: object,
) -> None:
    data = () if body is None else ("-d", body)
    url = f"http://localhost{path}"
    text, _, code = curl(
        vmm, "-X", method, *data, "-w", "|%{http_code}", url
    ).rpartition("|")
    assert int(code) == status
    assert (json.loads(text) if text else None) == answer


def test_one_connection_serves_many(vmm: Daemon) -> None:
    url = "http://localhost/version"
    shown = curl(vmm, "-w", "%{num_connects}\n", url, url, url)
    assert shown.count("1.16.1") == 3
    assert [line[-1] for line in shown.splitlines()] == ["1", "0", "0"]


def test_a_body_over_the_limit_is_refused(vmm: Daemon, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_text(json.dumps({"log_path": "x" * 60_000}))
    url = "http://localhost/logger"
    text = curl(vmm, "-X", "PUT", "--data-binary", f"@{body}", url)
    assert "is larger than the limit of 51200 allowed by server." in text
