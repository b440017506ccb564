"""What a load needs and no snapshot is needed for, done ahead of it."""

from __future__ import annotations

from contextlib import suppress

from vmmd.errors import HostError
from vmmd.http.connection import Connection, Request
from vmmd.http.routes import parse
from vmmd.loop.host_fit import host_facts
from vmmd.machine import COLD
from vmmd.saved import RECORDS
from vmmd.state.manifest import PAGE_SIZE, MemoryManifest
from vmmd.state.snapshot import Header, SnapshotFile, decode, encode, pack
from vmmd.state.translate import upgraded

_BODY = b"""{"snapshot_path": "", "mem_backend": {"backend_type": "File",
"backend_path": ""}, "resume_vm": true}"""
_REQUEST = (
    b"PUT /snapshot/load HTTP/1.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def rehearse() -> None:
    """Take a request, read a small state file, ask the host what it offers.

    What is made on first use is there then: the schemas of all records, the
    tables of the codec, the facts of the host.
    """
    _ask()
    upgraded(decode(_state_file()), RECORDS)
    with suppress(HostError):  # the load will say so
        host_facts().as_seen()


def _ask() -> None:
    """Understand and answer a request that has a body."""
    connection = Connection()
    connection.receive(_REQUEST)
    request = connection.next_request()
    if isinstance(request, Request):
        parse(request.method, request.target, request.body)
        connection.respond(204, None)


def _state_file() -> bytes:
    manifest = MemoryManifest(
        size=PAGE_SIZE,
        regions=((0, PAGE_SIZE),),
        kind="Full",
        parent_id=None,
        pages=bytes(64),
        checksums=bytes(4),
        unverified=bytes(1),
    )
    header = Header(snapshot_id="", memory=manifest.to_plain())
    chips = (COLD.serial, COLD.i8042, COLD.power)
    return encode(SnapshotFile(header, tuple(map(pack, chips))))
