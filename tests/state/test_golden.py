"""Golden files: what any version ever wrote is read as it was meant."""

from __future__ import annotations

import pytest

from tests.helpers import golden
from tests.helpers.records import example, record_classes
from tests.helpers.state_file import HEADER, file_of
from vmmd.state.codec import Entry, kind_of, pack, unpack
from vmmd.state.crc32c import crc32c
from vmmd.state.snapshot import MAGIC, decode, encode
from vmmd.state.translate import translate_up

CLASSES = record_classes()
VERSIONS = golden.versions()
_HEAD = encode(file_of())[len(MAGIC) : -4]


def test_every_version_of_every_record_has_a_golden_file() -> None:
    missing = [item for item in VERSIONS if not golden.path_of(*item).exists()]
    assert not missing, "run `make golden`"
    known = {golden.path_of(*item).name for item in VERSIONS}
    assert known >= {path.name for path in golden.FOLDER.glob("*.msgpack")}


@pytest.mark.parametrize(("kind", "version"), VERSIONS)
def test_a_golden_file_is_read(kind: str, version: int) -> None:
    data = golden.path_of(kind, version).read_bytes()
    entry = golden_entry(data)
    assert (entry.kind, entry.id, entry.version) == (kind, "id", version)
    newest = translate_up(file_of(entry), CLASSES.values()).entries[0]
    upgraded: object = unpack(newest, CLASSES[kind])
    expected = golden.entry_of(kind, version)
    again = translate_up(file_of(expected), CLASSES.values()).entries[0]
    assert upgraded == unpack(again, CLASSES[kind])


@pytest.mark.parametrize(("kind", "version"), VERSIONS)
def test_what_is_written_is_the_golden_file(kind: str, version: int) -> None:
    # The same state has the same bytes, also in a later vmmd.
    written = golden.content(golden.entry_of(kind, version))
    assert written == golden.path_of(kind, version).read_bytes()


def test_a_record_that_changed_has_a_new_version() -> None:
    for kind, cls in CLASSES.items():
        entry = pack(example(cls), "id")
        assert (
            golden.content(entry)
            == golden.path_of(kind, kind_of(cls).version).read_bytes()
        ), f"{kind}: new fields, and no new version"


def golden_entry(data: bytes) -> Entry:
    """The entry of a golden file, by way of a whole state file."""
    body = MAGIC + _HEAD + data
    file = decode(body + crc32c(body).to_bytes(4, "little"))
    assert file.header == HEADER
    return file.entries[0]


def test_the_golden_file_of_the_format_is_read_and_written() -> None:
    data = golden.FORMAT_FILE.read_bytes()
    assert decode(data) == golden.format_file()
    assert encode(golden.format_file()) == data
