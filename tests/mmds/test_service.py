"""Requests and their answers: every status, header and text, V1 and V2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmmd.http.serde import dump
from vmmd.mmds.service import Mmds
from vmmd.mmds.state import MmdsState

if TYPE_CHECKING:
    from vmmd.mmds.store import Json

NS_PER_S = 1_000_000_000
DATA: Json = {"latest": {"meta-data": {"ami": "x", "n": {"a": 1}}, "list": [1, "two"]}}
NO_TOKEN = (
    "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` "
    "header to specify the session token."
)
NO_TTL = (
    "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or "
    "`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime."
)
UNSUPPORTED = "Cannot retrieve value. The value has an unsupported type."


def service(version: str = "V1", *, imds_compat: bool = False) -> Mmds:
    made = Mmds(51_200, "vm", dump, bytes)
    made.configure(MmdsState(version=version, imds_compat=imds_compat))
    made.store.put(DATA)
    return made


def ask(
    mmds: Mmds, target: str, *headers: str, method: str = "GET", now_ns: int = 0
) -> tuple[int, dict[str, str], str]:
    """The status, headers and body of the answer to a request."""
    lines = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", *headers))
    reply = mmds.answer(f"{lines}\r\n".encode(), now_ns).decode()
    head, _, body = reply.partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    assert fields[:2] == ["Server: Firecracker API", "Connection: keep-alive"]
    return (
        int(status.removeprefix("HTTP/1.1 ")),
        dict(field.split(": ", 1) for field in fields[2:]),
        body,
    )


def token(mmds: Mmds, ttl_s: int = 60, now_ns: int = 0) -> str:
    header = f"X-metadata-token-ttl-seconds: {ttl_s}"
    status, _, body = ask(
        mmds, "/latest/api/token", header, method="PUT", now_ns=now_ns
    )
    assert status == 200
    return body


@pytest.mark.parametrize(
    ("target", "accept", "status", "kind", "body"),
    [
        ("/", "*/*", 200, "text/plain", "latest/"),
        ("/latest", "text/plain", 200, "text/plain", "list\nmeta-data/"),
        ("//latest///meta-data/", "", 200, "text/plain", "ami\nn/"),
        ("/latest/meta-data/ami", "", 200, "text/plain", "x"),
        ("/latest/meta-data/ami", "application/json", 200, "application/json", '"x"'),
        ("/latest/list", "application/json", 200, "application/json", '[1,"two"]'),
        ("/latest/list", "", 501, "text/plain", UNSUPPORTED),
        ("/latest/list/1", "", 200, "text/plain", "two"),
        ("http://169.254.169.254/latest/list/1", "", 200, "text/plain", "two"),
        ("/no//such", "", 404, "text/plain", "Resource not found: /no//such."),
        ("/latest?x", "", 404, "text/plain", "Resource not found: /latest?x."),
        ("latest", "", 400, "text/plain", "Invalid URI."),
    ],
)
def test_a_get(target: str, accept: str, status: int, kind: str, body: str) -> None:
    for mmds in (service(), service("V2")):
        headers = (f"Accept: {accept}", f"X-metadata-token: {token(mmds)}")
        expected = {"Content-Type": kind, "Content-Length": str(len(body))}
        assert ask(mmds, target, *headers) == (status, expected, body)


def test_text_is_forced_but_its_type_is_as_asked() -> None:
    mmds = service(imds_compat=True)
    status, headers, body = ask(mmds, "/latest", "Accept: application/json")
    assert (status, body) == (200, "list\nmeta-data/")
    assert headers["Content-Type"] == "application/json"


def test_without_data_there_is_nothing() -> None:
    mmds = Mmds(51_200, "vm", dump, bytes)
    assert ask(mmds, "/")[::2] == (501, UNSUPPORTED)
    assert ask(mmds, "/a")[::2] == (404, "Resource not found: /a.")
    assert ask(mmds, "/", "Accept: application/json")[::2] == (200, "null")


def test_version_1_counts_tokens_and_does_not_ask_for_them() -> None:
    mmds = service("V1")
    good = f"X-metadata-token: {token(mmds)}"
    for headers in ((), ("X-metadata-token: bad",), (good,)):
        assert ask(mmds, "/latest/meta-data/ami", *headers)[0] == 200
    assert mmds.counters.rx_no_token == 1
    assert mmds.counters.rx_invalid_token == 1


def test_version_2_asks_for_a_token() -> None:
    mmds = service("V2")
    path = "/latest/meta-data/ami"
    assert ask(mmds, path)[::2] == (401, NO_TOKEN)
    refused = ask(mmds, path, "X-metadata-token: bad")
    assert refused[::2] == (401, "MMDS token not valid.")
    assert (mmds.counters.rx_no_token, mmds.counters.rx_invalid_token) == (1, 1)
    made = token(mmds, 1)
    for name in ("X-metadata-token", "x-AWS-ec2-metadata-token"):
        header = f"{name}: {made}"
        assert ask(mmds, path, header)[::2] == (200, "x")
        assert ask(mmds, path, header, now_ns=NS_PER_S)[0] == 401


@pytest.mark.parametrize(
    "name", ["X-metadata-token-ttl-seconds", "x-aws-EC2-metadata-token-ttl-seconds"]
)
def test_a_token_is_put(name: str) -> None:
    for version in ("V1", "V2"):
        mmds = service(version)
        status, headers, body = ask(
            mmds, "//latest/api/token", f"{name}: 21600", method="PUT"
        )
        assert (status, headers[name], len(body)) == (200, "21600", 48)
        assert headers["Content-Type"] == "text/plain"


BAD = "Invalid header. Reason: "


@pytest.mark.parametrize(
    ("target", "headers", "status", "text"),
    [
        ("/latest/api/token", (), 400, NO_TTL),
        (
            "/latest/api/token",
            ("x-Metadata-Token-TTL-seconds: 1s",),
            400,
            BAD + "Invalid value. Key:x-Metadata-Token-TTL-seconds; Value:1s",
        ),
        (
            "/latest/api/token",
            ("X-metadata-token-ttl-seconds: 4294967296",),
            400,
            BAD + "Invalid value. Key:X-metadata-token-ttl-seconds; Value:4294967296",
        ),
        (
            "/latest/api/token",
            ("X-metadata-token-ttl-seconds: 21601",),
            400,
            "Invalid time to live value provided for token: 21601. Please provide a "
            "value between 1 and 21600.",
        ),
        (
            "/latest/api/token",
            ("X-metadata-token-ttl-seconds: 60", "x-FORWARDED-for: a"),
            400,
            BAD + "Unsupported header name. Key: x-FORWARDED-for",
        ),
        ("/latest", (), 404, "Resource not found: /latest."),
        ("/latest/api/token/", (), 404, "Resource not found: /latest/api/token/."),
    ],
)
def test_a_put_that_is_refused(
    target: str, headers: tuple[str, ...], status: int, text: str
) -> None:
    answer = ask(service("V2"), target, *headers, method="PUT")
    assert answer[::2] == (status, text)
    assert answer[1]["Content-Type"] == "text/plain"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_other_methods_are_not_allowed(method: str) -> None:
    status, headers, body = ask(service("V2"), "/", method=method)
    assert (status, body) == (405, "Not allowed HTTP method.")
    assert headers["Allow"] == "GET, PUT"


def test_what_is_no_request_is_told_so() -> None:
    status, headers, body = ask(service(), "/", method="HEAD")
    assert (status, body) == (501, "Unsupported HTTP method.")
    assert headers["Content-Type"] == "application/json"


def test_the_version_of_the_answer_is_the_requests() -> None:
    reply = service().answer(b"GET / HTTP/1.0\r\n\r\n", 0)
    assert reply.startswith(b"HTTP/1.0 200 \r\n")


def test_what_is_saved_is_the_configuration() -> None:
    mmds = service("V2", imds_compat=True)
    assert mmds.save() == MmdsState(version="V2", imds_compat=True)
    assert Mmds(1, "vm", dump, bytes).save() == MmdsState()
