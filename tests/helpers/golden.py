"""Golden files: each version of each record as it was first written.

``python -m tests.helpers.golden`` (``make golden``) writes those that are missing
and never touches one that is there: they stand for files that users have.
"""

from __future__ import annotations

from pathlib import Path

import msgpack

from tests.helpers.records import example, record_classes
from tests.helpers.state_file import file_of
from vmmd.state.codec import Entry, kind_of, pack
from vmmd.state.snapshot import FORMAT, SnapshotFile, encode
from vmmd.state.translate import translate_down
from vmmd.state.versions import CHANGES, RELEASES, version_for

FOLDER = Path(__file__).resolve().parents[1] / "golden"
FORMAT_FILE = FOLDER / f"format-v{FORMAT}.state"


def path_of(kind: str, version: int) -> Path:
    """Where the golden file of a version stands."""
    return FOLDER / f"{kind}-v{version}.msgpack"


def versions() -> list[tuple[str, int]]:
    """Every kind and version that there is or was."""
    return [
        (kind, version)
        for kind, cls in record_classes().items()
        for version in range(1, kind_of(cls).version + 1)
    ]


def entry_of(kind: str, version: int) -> Entry:
    """The example of a kind, as the last release had it that knew this version."""
    classes = record_classes()
    release = [name for name in RELEASES if version_for(kind, name) == version][-1]
    newest = file_of(pack(example(classes[kind]), "id"))
    older, _ = translate_down(newest, release, classes.values())
    return older.entries[0]


def content(entry: Entry) -> bytes:
    """An entry as it stands in a state file."""
    plain = {name: getattr(entry, name) for name in sorted(Entry.__match_args__)}
    data: bytes = msgpack.packb(plain)
    return data


def format_file() -> SnapshotFile:
    """A whole file: two records, one of them of a kind that nobody knows."""
    known = Entry("power", "", 1, {"sleep_control": 0x34})
    return file_of(known, Entry("later", "x", 7, {"new": (1, "a", b"b")}, True))


def main() -> None:
    """Write what is missing."""
    FOLDER.mkdir(exist_ok=True)
    for kind, version in versions():
        if kind in CHANGES and not (path := path_of(kind, version)).exists():
            path.write_bytes(content(entry_of(kind, version)))
            print(path.name)
    if not FORMAT_FILE.exists():
        FORMAT_FILE.write_bytes(encode(format_file()))


if __name__ == "__main__":
    main()
