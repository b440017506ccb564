"""docs/snapshot-format.md is true: a reader made from it reads what we write."""

from __future__ import annotations

import random
import re
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.helpers import golden, reader
from tests.helpers.records import example, record_classes
from tests.helpers.state_file import HEADER, file_of
from vmmd.state.codec import kind_of, pack
from vmmd.state.crc32c import crc32c
from vmmd.state.manifest import MemoryManifest
from vmmd.state.record import IntRange, Length
from vmmd.state.snapshot import MAGIC, Header, canonical, encode

PAGE = (Path(__file__).parents[2] / "docs" / "snapshot-format.md").read_text()
CLASSES = record_classes()


def listed(value: Any) -> Any:  # noqa: ANN401 (plain values)
    """The same with lists for tuples, as a reader gets them."""
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return list(map(listed, value)) if isinstance(value, tuple) else value


def test_the_reader_reads_every_record_as_it_was_written() -> None:
    entries = [pack(example(cls), "id") for cls in CLASSES.values()]
    snapshot = reader.read(encode(file_of(*entries)))
    assert [record["kind"] for record in snapshot.records] == list(CLASSES)
    assert snapshot.records == [
        {name: listed(getattr(entry, name)) for name in entry.__match_args__}
        for entry in entries
    ]
    assert snapshot.header["target_version"] == HEADER.target_version
    assert set(snapshot.header) == set(Header.__match_args__)


def test_the_reader_reads_the_golden_file_and_refuses_a_damaged_one() -> None:
    data = golden.FORMAT_FILE.read_bytes()
    assert len(reader.read(data).records) == 2
    assert reader.header_of(data)["snapshot_id"] == "5eed"
    with pytest.raises(ValueError, match="checksum"):
        reader.read(data[:20] + b"\0" + data[21:])


def test_the_reader_finds_the_data_pages_of_a_memory_file() -> None:
    memory = bytearray(2 * reader.BLOCK + 5 * reader.PAGE)
    places = [0, 7 * reader.PAGE, reader.BLOCK - reader.PAGE, 2 * reader.BLOCK]
    for place in places:
        memory[place : place + 4096] = random.Random(place).randbytes(4096)
    bits, sums = bytearray(3 * 64), bytearray(12)
    for place in places:
        bits[place // 4096 // 8] |= 1 << place // 4096 % 8
        at = 4 * (place // reader.BLOCK)
        before = int.from_bytes(sums[at : at + 4], "little")
        crc = crc32c(memory[place : place + 4096], before)
        sums[at : at + 4] = crc.to_bytes(4, "little")
    manifest = MemoryManifest(
        size=len(memory),
        regions=((0, len(memory)),),
        kind="Full",
        parent_id=None,
        pages=bytes(bits),
        checksums=bytes(sums),
        unverified=b"\0",
    )
    plain = canonical(manifest.to_plain())
    assert sorted(reader.data_pages(plain, bytes(memory))) == places
    memory[places[1]] ^= 1
    with pytest.raises(ValueError, match="block 0"):
        reader.data_pages(plain, bytes(memory))


def test_the_page_has_the_magic() -> None:
    assert f"`{MAGIC.hex(' ')}`" in PAGE


# The page's lists against the code.


def shown(hint: Any) -> str:  # noqa: ANN401 (an annotation)
    """A field's type as the page writes it."""
    names = {int: "u64", bool: "bool", str: "str", bytes: "bytes"}
    if hint in names or hasattr(hint, "RECORD"):
        return names.get(hint) or kind_of(hint).kind
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return sized(arguments[0], arguments[1])
    if typing.get_origin(hint) is tuple:
        if arguments[1:] == (...,):
            return f"[{shown(arguments[0])} ...]"
        return f"[{', '.join(map(shown, arguments))}]"
    return "map" if hint == dict[str, Any] else f"{shown(arguments[0])} or nil"


def sized(hint: Any, limits: IntRange | Length) -> str:  # noqa: ANN401 (an annotation)
    """A type with a range or a length."""
    both = f"{limits.low}..{limits.high}"
    if isinstance(limits, IntRange):
        widths = {f"0..{(1 << n) - 1}": f"u{n}" for n in (8, 16, 32, 64)}
        widths[f"{-(1 << 63)}..{(1 << 63) - 1}"] = "i64"
        return widths.get(both, both)
    count = both if limits.low != limits.high else f"{limits.low}"
    if hint is bytes:
        return f"bytes({count})"
    return shown(hint).replace("...", f"x {count}")


def fields_of(cls: type) -> dict[str, str]:
    """Names and types of a record's fields, as the page writes them."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = typing.cast("Any", cls).__dataclass_fields__
    return {name: shown(hints[name]) for name in names}


def section(kind: str) -> tuple[int, dict[str, str]]:
    """The version and the fields that the page gives for a kind."""
    found = re.search(
        rf"^#### {kind} (\d+)\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/snapshot-format.md: no section on {kind}"
    parts = found[2].strip().split("\n\n")
    lists = [part for part in parts if re.match(r"`\w+` \S", part)]
    text = " ".join(lists[0].split()).rstrip(".")
    pairs = re.findall(r"`(\w+)` ((?:\[.*?\](?=, `|$)|[^`]*?))(?=, `|$)", text)
    return int(found[1]), dict(pairs)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_page_lists_the_fields_of_every_kind(kind: str) -> None:
    version, fields = section(kind)
    assert version == kind_of(CLASSES[kind]).version
    assert fields == fields_of(CLASSES[kind])


def test_the_page_lists_no_kind_that_is_not_there() -> None:
    assert set(re.findall(r"^#### (\w+)", PAGE, re.MULTILINE)) == set(CLASSES)


def test_the_page_lists_the_keys_of_the_header() -> None:
    part = PAGE[PAGE.index("## Header") : PAGE.index("## Memory file")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", part, re.MULTILINE))
    assert rows == fields_of(Header)


def test_the_page_lists_the_keys_of_the_manifest() -> None:
    part = PAGE[PAGE.index("## Memory file") : PAGE.index("## Records")]
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == set(HEADER.memory)


def test_every_new_version_is_said_to_have_come() -> None:
    rows = set(re.findall(r"^\| ([a-z]\w+) \| (\d+) \|", PAGE, re.MULTILINE))
    newer = {(kind, str(n)) for kind, n in golden.versions() if n > 1}
    assert rows == newer
