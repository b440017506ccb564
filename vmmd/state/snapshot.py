"""The state file: magic, header, records, checksum. docs/snapshot-format.md.

``encode`` gives the same bytes for the same state; ``decode`` trusts nothing;
``describe`` reads the header alone, also of a file from a newer vmmd.
"""

from __future__ import annotations

from functools import partial
from itertools import islice, pairwise
from operator import lt
from typing import TYPE_CHECKING, Any

import msgpack

from vmmd import FIRECRACKER_VERSION, __version__
from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass
from vmmd.state.codec import Entry, check_plain, named, pack, schema, unpack
from vmmd.state.crc32c import crc32c
from vmmd.state.damage import (
    CHECKSUM_SIZE,
    UNREADABLE_DEBUG,
    BrokenError,
    ForeignFileError,
    fault_of,
    is_intact,
    judged,
    wrong_checksum,
)
from vmmd.state.fields import MAX_ITEMS, MAX_TEXT, FieldFault, type_name
from vmmd.state.manifest import MemoryManifest
from vmmd.state.record import I64, U16, U32, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vmmd.state.fields import Value

__all__ = [
    "Entry",
    "Header",
    "SnapshotFile",
    "Survey",
    "assemble",
    "canonical",
    "decode",
    "describe",
    "describe_whole",
    "encode",
    "encode_entries",
    "pack",
    "survey",
    "unpack",
]

MAGIC = b"\x89VMMD\r\n\x1a"
"""Not text, and damaged by whatever takes it for text."""
FORMAT = 1
MAX_FILE_SIZE = 10_000_000
"""Bytes of a state file; a 32-vCPU machine's with 64 GiB has three million."""
_SHORTEST = len(MAGIC) + CHECKSUM_SIZE
_CRC_FIELD_SIZE = 8  # of Firecracker's files, whose text the shortest ones get
_NEWEST = ".".join(FIRECRACKER_VERSION.split(".")[:2]) + ".0"


@record("header", FORMAT)
class Header:
    """What a file says of itself to every version of vmmd.

    Keys are never removed or given another meaning; a newer ``format`` may add
    some. ``target_version`` is the release whose records the file holds,
    ``devices`` kinds and ids in the order of their slots, ``time`` seconds since
    1970, ``memory`` the plain form of a manifest.
    """

    snapshot_id: str
    memory: dict[str, Any]
    parent_id: str | None = None
    target_version: str = _NEWEST
    devices: tuple[tuple[str, str], ...] = ()
    time: I64 = 0
    arch: str = "x86_64"
    cpu_vendor: str = ""
    cpu_model: str = ""
    tsc_khz: U32 | None = None
    kernel: str = ""
    producer: str = "vmmd"
    producer_version: str = __version__
    format: U16 = FORMAT

    @property
    def manifest(self) -> MemoryManifest:
        """The memory manifest. SnapshotError names the field that is wrong."""
        return MemoryManifest.from_plain(self.memory)


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A state file's contents. No two entries have both kind and id in common."""

    header: Header
    entries: tuple[Entry, ...]


def encode(file: SnapshotFile) -> bytes:
    """The file's bytes. SnapshotError if there are too many, or a name twice."""
    return assemble(file.header, encode_entries(file.entries))


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """The part of the file that does not depend on memory. SnapshotError."""
    _check_names(entries)
    packer = msgpack.Packer(autoreset=False)
    for entry in entries:
        packer.pack(_write_entry(entry))
    made: bytes = packer.bytes()
    return made


def assemble(header: Header, entries: bytes) -> bytes:
    """The file's bytes, of what :func:`encode_entries` gave. SnapshotError."""
    body: bytes = MAGIC + msgpack.packb(canonical(_write_header(header))) + entries
    if len(body) + CHECKSUM_SIZE > MAX_FILE_SIZE:
        raise _too_long()
    return body + crc32c(body).to_bytes(CHECKSUM_SIZE, "little")


def decode(data: bytes) -> SnapshotFile:
    """The file's contents: records are well formed, their fields not yet judged.

    SnapshotError says what is wrong; its ``debug`` is Firecracker's, if it has
    one for that. Entries of any kind and version are kept.
    """
    file = parse(data)
    for entry in file.entries:
        check_plain(entry)
    return file


def parse(data: bytes) -> SnapshotFile:
    """As :func:`decode`, but that fields are plain is for the caller to see.

    Whoever reads all fields by a schema sees it: no schema takes a float, a time
    or what nests too deeply.
    """
    _check_start(data)
    with judged(data):
        objects = _objects(_body(data))
        header = _read_header(next(objects))
        if header.format > FORMAT:
            raise SnapshotError(
                f"header: format {header.format}, at most {FORMAT} is known"
            )
        _ = header.manifest  # raises if it is wrong
        entries = tuple(map(_read_entry, objects))
        _check_names(entries)
    if not is_intact(data):
        raise wrong_checksum()
    return SnapshotFile(header, entries)


@dataclass(frozen=True, slots=True)
class Survey:
    """What can be read of a file, and what is wrong with it: each in a line."""

    header: Header
    entries: tuple[Entry, ...]
    faults: tuple[str, ...]


def survey(data: bytes) -> Survey:
    """As :func:`decode`, but of a damaged or newer file too, as far as it goes.

    SnapshotError if there is not even a header.
    """
    header, faults = describe(data), []
    if not is_intact(data):
        faults.append("the checksum is wrong: the file is damaged")
    if header.format > FORMAT:
        faults.append(f"format {header.format} is newer than {FORMAT}")
    entries = []
    try:
        _ = header.manifest
        for plain in islice(_objects(_body(data)), 1, None):
            entry = _read_entry(plain)
            check_plain(entry)
            entries.append(entry)
        _check_names(entries)
    except SnapshotError as error:
        faults.append(str(error))
    return Survey(header, tuple(entries), tuple(faults))


def describe(data: bytes) -> Header:
    """The header of a file of any version; the rest and the checksum do not count."""
    _check_start(data)
    return _read_header(next(_objects(_body(data))))


def describe_whole(data: bytes) -> Header:
    """As :func:`describe`, but a file of our format must have all of its end, too."""
    _check_start(data)
    with judged(data):
        header = describe(data)
        if header.format <= FORMAT and _is_cut(_body(data)):
            raise BrokenError("the last record ends too early")
    return header


def canonical(value: Value) -> Value:
    """The same with every map in key order and every array a tuple."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return tuple(map(canonical, value))
    return value


# Header and entries as maps.

_ENTRY_KEYS = {"fields", "id", "kind", "optional", "version"}


def _write_header(header: Header) -> dict[str, Any]:
    try:
        return schema(Header).write_fields(header)
    except FieldFault as fault:
        raise SnapshotError(f"header: {fault}") from fault


def _read_header(plain: Value) -> Header:
    if type(plain) is not dict:
        raise BrokenError("header: is not a map")
    known = plain
    if type(newer := plain.get("format")) is int and newer > FORMAT:
        known = {key: plain[key] for key in plain if key in schema(Header).names}
    try:
        header: Header = schema(Header).read_fields(known)
    except FieldFault as fault:
        raise BrokenError(f"header: {fault}") from fault
    return header


def _write_entry(entry: Entry) -> dict[str, Any]:
    return {
        "fields": entry.fields,
        "id": entry.id,
        "kind": entry.kind,
        "optional": entry.optional,
        "version": entry.version,
    }


def _read_entry(plain: Value) -> Entry:
    if type(plain) is not dict or plain.keys() != _ENTRY_KEYS:
        raise SnapshotError("record: is not fields, id, kind, optional and version")
    kind, name, version = plain["kind"], plain["id"], plain["version"]
    fields, optional = plain["fields"], plain["optional"]
    if type(kind) is not str or type(name) is not str:
        raise SnapshotError("record: kind or id is not a string")
    where = named(kind, name)
    if type(version) is not int:
        raise SnapshotError(f"{where}: version is {type_name(version)}")
    if not 0 < version <= 0xFFFF:
        raise SnapshotError(f"{where}: version {version} is out of range")
    if type(fields) is not dict:
        raise SnapshotError(f"{where}: fields are not a map")
    if type(optional) is not bool:
        raise SnapshotError(f"{where}: optional is not a boolean")
    return Entry(kind, name, version, fields, optional)


def _check_names(entries: Iterable[Entry]) -> None:
    seen = set()
    for entry in entries:
        if (entry.kind, entry.id) in seen:
            raise SnapshotError(f"{named(entry.kind, entry.id)}: is there twice")
        seen.add((entry.kind, entry.id))


# Bytes to plain values.

_TEXT = frozenset((str,))


def _check_start(data: bytes) -> None:
    if len(data) > MAX_FILE_SIZE:
        raise _too_long()
    if len(data) < _CRC_FIELD_SIZE:
        text = "File too short to contain CRC"
        debug = f'Io(Custom {{ kind: UnexpectedEof, error: "{text}" }})'
        raise fault_of(f"IO Error: {text}", debug)
    if not data.startswith(MAGIC) or len(data) < _SHORTEST:
        error = ForeignFileError("this is no state file of vmmd")
        error.debug = UNREADABLE_DEBUG
        raise error


def _body(data: bytes) -> memoryview:
    return memoryview(data)[len(MAGIC) : -CHECKSUM_SIZE]


def _too_long() -> SnapshotError:
    text = f"Snapshot size exceeds limit of {MAX_FILE_SIZE} bytes"
    return fault_of(text, f"SizeLimitExceeded({MAX_FILE_SIZE})")


def _objects(body: memoryview) -> Iterator[Value]:
    """The msgpack objects that follow each other; SnapshotError in the first bad one.

    Arrays are skipped before they are read: a length that lies allocates nothing.
    """
    ahead, unpacker = _unpacker(body), _unpacker(body)
    at, number = 0, 0
    while at < len(body) or number == 0:
        where = f"record {number}" if number else "header"
        try:
            ahead.skip()
            at = ahead.tell()
            value = unpacker.unpack()
        except msgpack.OutOfData:
            raise BrokenError(f"{where}: ends too early") from None
        except (ValueError, FieldFault) as error:
            kind = SnapshotError if number else BrokenError
            raise kind(f"{where}: {str(error) or 'is no msgpack'}") from error
        yield value
        number += 1


def _is_cut(body: memoryview) -> bool:
    """Whether the last object goes on past the end, as far as can be told."""
    unpacker = _unpacker(body)
    try:
        while unpacker.tell() < len(body):
            unpacker.skip()
    except msgpack.OutOfData:
        return True
    except ValueError:
        return False
    return False


def _unpacker(body: memoryview) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(
        use_list=False,
        read_size=len(body),  # of its buffer, which is a MiB else
        object_pairs_hook=partial(_map, set()),
        ext_hook=_refuse_extension,
        max_buffer_size=MAX_FILE_SIZE,
        max_str_len=MAX_TEXT,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
    )
    unpacker.feed(body)
    return unpacker


def _map(
    right: set[tuple[str, ...]], pairs: list[tuple[str, Value]]
) -> dict[str, Value]:
    """A map whose keys are strings in ascending order, so that none is there twice.

    ``right`` has the keys of maps that were seen to be so: most are like others.
    """
    made = dict(pairs)
    keys = tuple(made)
    if len(made) == len(pairs) and keys in right:
        return made
    if not _TEXT.issuperset(map(type, keys)):
        raise FieldFault("a key is not a string")
    if len(made) != len(pairs) or not all(map(lt, keys, keys[1:])):
        raise FieldFault(f"{_first_wrong(pairs)!r} is there twice or out of order")
    right.add(keys)
    return made


def _first_wrong(pairs: list[tuple[str, Value]]) -> str:
    keys = [key for key, _ in pairs]
    return next(b for a, b in pairwise(keys) if not a < b)


def _refuse_extension(_code: int, _data: bytes) -> None:
    raise FieldFault("an extension type")
