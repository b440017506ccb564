"""The container: round trips, and everything that can be wrong with one."""

from __future__ import annotations

import contextlib
import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.state_file import HEADER
from vmmd.errors import SnapshotError
from vmmd.state.crc32c import crc32c
from vmmd.state.damage import ForeignFileError, UnreadableFileError
from vmmd.state.snapshot import (
    FORMAT,
    MAGIC,
    MAX_FILE_SIZE,
    Entry,
    SnapshotFile,
    canonical,
    decode,
    describe,
    describe_whole,
    encode,
    survey,
)

FILE = SnapshotFile(
    HEADER,
    (
        Entry("alpha", "", 1, {"bytes": b"\0\xff", "int": (1 << 64) - 1, "no": None}),
        Entry("beta", "x", 3, {"deep": ({"@": "alpha/2", "yes": True}, -1)}, True),
    ),
)
GOOD = encode(FILE)

PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.text(max_size=20),
        st.binary(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner)
    ),
    max_leaves=20,
).map(canonical)
MAPS = st.dictionaries(st.text(max_size=8), PLAIN, max_size=6).map(canonical)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.text(max_size=12),
        st.text(max_size=12),
        st.integers(1, 0xFFFF),
        MAPS,
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda entry: (entry.kind, entry.id),
).map(tuple)


def sealed(*objects: object) -> bytes:
    """A file of these objects with the right magic and checksum."""
    return seal(b"".join(msgpack.packb(item) for item in objects))


def seal(body: bytes) -> bytes:
    """A file of this body with the right magic and checksum."""
    body = MAGIC + body
    return body + crc32c(body).to_bytes(4, "little")


def header_map(**changes: object) -> dict[str, object]:
    """The good header's map with some keys changed, in order."""
    plain = msgpack.Unpacker(None, max_buffer_size=MAX_FILE_SIZE)
    plain.feed(GOOD[len(MAGIC) :])
    made: dict[str, object] = canonical({**plain.unpack(), **changes})
    return made


def entry_map(**changes: object) -> dict[str, object]:
    """An entry's map with some keys changed, in order."""
    plain = {"fields": {}, "id": "", "kind": "k", "optional": False, "version": 1}
    made: dict[str, object] = canonical({**plain, **changes})
    return made


@given(ENTRIES)
def test_what_is_written_is_read(entries: tuple[Entry, ...]) -> None:
    file = SnapshotFile(HEADER, entries)
    assert decode(encode(file)) == file
    assert encode(decode(encode(file))) == encode(file)


def test_the_header_can_be_read_alone() -> None:
    assert describe(GOOD) == HEADER
    assert HEADER.manifest.size == 2 << 20


def test_every_truncation_is_told() -> None:
    for size in range(len(GOOD)):
        with pytest.raises(SnapshotError):
            decode(GOOD[:size])


def test_every_flipped_bit_is_told() -> None:
    for at in range(8 * len(GOOD)):
        wrong = bytearray(GOOD)
        wrong[at // 8] ^= 1 << at % 8
        with pytest.raises(SnapshotError):
            decode(bytes(wrong))


def test_every_flip_and_truncation_behind_a_right_checksum_is_told_or_read() -> None:
    body = GOOD[len(MAGIC) : -4]
    for at in range(8 * len(body)):
        wrong = bytearray(body)
        wrong[at // 8] ^= 1 << at % 8
        read_or_told(seal(bytes(wrong)))
    for size in range(len(body)):
        read_or_told(seal(body[:size]))


@given(st.binary(max_size=200))
def test_any_bytes_are_told_or_read(body: bytes) -> None:
    read_or_told(body)
    read_or_told(seal(body))
    read_or_told(seal(GOOD[len(MAGIC) : -4] + body))


def read_or_told(data: bytes) -> None:
    """Either all is well, or there is one SnapshotError."""
    for verb in (decode, describe, describe_whole):
        with contextlib.suppress(SnapshotError):
            verb(data)


@pytest.mark.parametrize(
    ("data", "text", "debug"),
    [
        (
            b"",
            "IO Error: File too short to contain CRC",
            'Io(Custom { kind: UnexpectedEof, error: "File too short to contain CRC" })',
        ),
        (bytes(64), "this is no state file of vmmd", 'Bitcode(Error("bitcode error"))'),
        (MAGIC, "this is no state file of vmmd", 'Bitcode(Error("bitcode error"))'),
        (GOOD[:-1], "the file is damaged: ", 'Bitcode(Error("bitcode error"))'),
        (GOOD.replace(b"alpha\xa8", b"alpha\xc1"), "CRC64 validation failed", "Crc64"),
        (
            MAGIC + b"\xc0" + GOOD[len(MAGIC) + 1 :],
            "the file is damaged: header: is not a map",
            'Bitcode(Error("bitcode error"))',
        ),
        (GOOD[:-2] + b"ZZ", "CRC64 validation failed", "Crc64"),
        (
            bytes(MAX_FILE_SIZE + 1),
            "Snapshot size exceeds limit of 10000000 bytes",
            "SizeLimitExceeded(10000000)",
        ),
        (seal(b""), "header: ends too early", ""),
        (sealed([]), "header: is not a map", ""),
        (sealed(header_map(format=FORMAT + 1)), "header: format 2, at most 1", ""),
        (sealed(header_map(later=1)), "header: later: is not known", ""),
        (sealed(header_map(arch=5)), "header: arch: is an integer, not a string", ""),
        (sealed(header_map(tsc_khz=-1)), "header: tsc_khz: -1 is out of range", ""),
        (sealed(header_map(memory={})), "memory manifest: block_size is missing", ""),
        (sealed(header_map(), 5), "record: is not fields, id,", ""),
        (sealed(header_map(), entry_map(kind=b"k")), "record: kind or id is not", ""),
        (sealed(header_map(), entry_map(version=0)), "k: version 0 is out", ""),
        (sealed(header_map(), entry_map(version=True)), "k: version is a boolean", ""),
        (sealed(header_map(), entry_map(fields=())), "k: fields are not a map", ""),
        (sealed(header_map(), entry_map(optional=1)), "k: optional is not", ""),
        (sealed(header_map(), entry_map(), entry_map()), "k: is there twice", ""),
        (sealed(header_map(), entry_map(fields={"a": 1.5})), "k: holds a float", ""),
        (
            sealed(header_map(), {"version": 1, "kind": "k"}),
            "record 1: 'kind' is there twice or out of order",
            "",
        ),
        (
            seal(msgpack.packb(header_map()) + b"\x82\xa1a\x01\xa1a\x02"),
            "record 1: 'a' is there twice or out of order",
            "",
        ),
        (sealed(header_map(), {b"a": 1}), "record 1: a key is not a string", ""),
        (
            seal(msgpack.packb(header_map()) + b"\xd4\x05x"),
            "record 1: an extension type",
            "",
        ),
        (
            sealed(header_map(), entry_map(fields={"a": msgpack.Timestamp(1)})),
            "k: ",
            "",
        ),
        (seal(msgpack.packb(header_map()) + b"\xc1"), "record 1: ", ""),
        (
            seal(msgpack.packb(header_map()) + b"\xdd\xff\xff\xff\xff"),
            "record 1: ends too early",
            "",
        ),
        (seal(msgpack.packb(header_map()) + b"\x91" * 5000), "record 1: ", ""),
        (sealed(header_map(), entry_map(fields={"a": "x" * 70_000})), "record 1: ", ""),
        (sealed(header_map(), [None] * 70_000), "record 1: ", ""),
    ],
)
def test_what_is_said_of_bad_files(data: bytes, text: str, debug: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        decode(data)
    assert str(caught.value).startswith(text)
    assert caught.value.debug == debug


def test_what_nests_too_deeply_is_refused() -> None:
    def nested(depth: int) -> bytes:
        value: object = 1
        for _ in range(depth):
            value = (value,)
        return sealed(header_map(), entry_map(fields={"a": value}))

    assert decode(nested(15)).entries[0].kind == "k"
    with pytest.raises(SnapshotError, match="k: nests more than 16 deep"):
        decode(nested(16))


def test_a_version_that_nests_too_deeply_to_be_shown() -> None:
    whole = msgpack.packb(entry_map())
    assert whole.endswith(b"version\x01")
    entry = whole[:-1] + b"\x91" * 1010 + b"\x01"
    with pytest.raises(SnapshotError, match="k: version is an array"):
        decode(seal(msgpack.packb(header_map()) + entry))


def test_a_foreign_file_is_its_own_kind_of_error() -> None:
    with pytest.raises(ForeignFileError):
        describe(b"\x01\x00\x64\x86\x84\x19\x10\x07" + bytes(20))


def test_a_description_of_the_whole_needs_a_readable_end() -> None:
    assert describe_whole(GOOD) == describe(GOOD)
    newer = sealed(header_map(format=2, later=1))[:-4] + b"\xc1" + bytes(4)
    assert describe_whole(newer).format == 2
    assert describe_whole(GOOD.replace(b"alpha\xa8", b"alpha\xc1")) == describe(GOOD)
    for size in (len(GOOD) - 1, len(GOOD) // 2, 20):
        with pytest.raises(UnreadableFileError):
            describe_whole(GOOD[:size])


def test_a_newer_file_is_described_and_not_decoded() -> None:
    newer = sealed(header_map(format=2, target_version="3.1.0", later=[1]), "what")
    assert describe(newer).target_version == "3.1.0"
    with pytest.raises(SnapshotError, match="format 2"):
        decode(newer)


def test_describe_does_not_look_past_the_header() -> None:
    assert describe(GOOD[:-4] + b"\xc1\xc1" + bytes(4)) == HEADER


def test_a_file_that_could_not_be_read_is_not_written() -> None:
    twice = SnapshotFile(HEADER, (FILE.entries[0], FILE.entries[0]))
    with pytest.raises(SnapshotError, match="alpha: is there twice"):
        encode(twice)
    big = Entry("big", "", 1, {"a": bytes(MAX_FILE_SIZE)})
    with pytest.raises(SnapshotError, match="exceeds limit"):
        encode(SnapshotFile(HEADER, (big,)))
    nameless = dataclasses.replace(HEADER, snapshot_id="\udc80")
    with pytest.raises(SnapshotError, match="header: snapshot_id: is not Unicode"):
        encode(SnapshotFile(nameless, ()))


@given(st.data())
def test_a_survey_of_any_damage_is_a_survey_or_one_clear_error(
    data: st.DataObject,
) -> None:
    whole = encode(FILE)
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    damaged = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
    cut = data.draw(st.integers(0, len(whole)))
    for content in (damaged, damaged[:cut], whole[:cut]):
        try:
            found = survey(content)
        except SnapshotError:
            continue
        if content != whole:
            assert found.faults
        assert len(found.entries) <= len(FILE.entries) + 1


def test_a_survey_of_a_whole_file_is_the_file() -> None:
    found = survey(encode(FILE))
    assert (found.header, found.entries, found.faults) == (
        FILE.header,
        FILE.entries,
        (),
    )
