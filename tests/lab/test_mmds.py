"""The metadata service as a stock guest sees it: curl, V1, large answers, many at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers.debian_guest import (
    DebianGuest,
    add_taps,
    debian_guest,
    namespace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.images import Images

AT = "http://169.254.169.254"
LARGE = "metadata " * 4000
DATA = {"latest": {"name": "x", "large": LARGE, "tree": {"a": 1}}}
GETS = 200


@pytest.fixture(scope="module")
def guest(
    guest_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DebianGuest]:
    folder = tmp_path_factory.mktemp("mmds")
    with namespace("mmds") as where:
        add_taps(where, 1)
        with debian_guest(guest_images, folder, where, 1, "V1") as made:
            made.api.ok("PUT", "/mmds", DATA)
            made.ssh("ip route replace 169.254.169.254 dev eth0")
            yield made


def curl(guest: DebianGuest, *arguments: str) -> str:
    """What curl in the guest prints."""
    return guest.ssh(" ".join(("curl -s --max-time 60", *arguments)))


@pytest.mark.timeout(400)
def test_version_1_asks_for_no_token(guest: DebianGuest) -> None:
    assert curl(guest, f"{AT}/latest/name") == "x"
    assert curl(guest, f"{AT}/latest/tree") == "a"
    tree = curl(guest, "-H 'Accept: application/json'", f"{AT}/latest")
    assert json.loads(tree) == DATA["latest"]
    status = curl(guest, "-o /dev/null -w '%{http_code}'", f"{AT}/none")
    assert status == "404"


def test_an_answer_of_many_segments_arrives_whole(guest: DebianGuest) -> None:
    assert curl(guest, f"{AT}/latest/large") == LARGE
    # A reader that is slow shuts its window.
    slow = guest.ssh(
        f"curl -s --limit-rate 20k {AT}/latest/large | sha256sum; "
        f"curl -s {AT}/latest/large | sha256sum"
    ).split()
    assert slow[0] == slow[2]


def test_many_connections_at_once(guest: DebianGuest) -> None:
    answers = guest.ssh(f"for n in $(seq 20); do curl -s {AT}/latest/name & done; wait")
    assert answers == "x" * 20


def test_a_port_that_nobody_serves_is_refused(guest: DebianGuest) -> None:
    said = guest.ssh(f"curl -s --max-time 60 {AT}:443/; echo $?")
    assert said == "7\n"  # could not connect; 28 would be a timeout


def test_gets_per_second(guest: DebianGuest) -> None:
    script = f"""
    for n in $(seq {GETS}); do set -- "$@" {AT}/latest/name; done
    begun=$(date +%s%N)
    curl -s "$@"; echo
    echo $(($(date +%s%N) - begun))
    """
    answer, took_ns = guest.ssh(script).split()
    assert answer == "x" * GETS
    print(f"MMDS: {GETS / int(took_ns) * 1e9:.0f} GETs a second of one curl")
