"""A state file whose checksum is right and whose every value may be a lie."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kvm.test_snapshot import booted, create
from vmmd import snapshot_params as p
from vmmd.errors import ConfigError
from vmmd.loop.snapshot_load import load
from vmmd.state.snapshot import SnapshotFile, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmmd.state.fields import Value

# What any one field may become: the ends of every width, and other types.
LIES = st.one_of(
    st.sampled_from([0, 1, 0xFF, 0xFFFF, 0xFFFF_FFFF, (1 << 64) - 1, 1 << 63]),
    st.sampled_from([None, True, False, "", "x" * 99, b"", b"y" * 99, ()]),
    st.integers(0, (1 << 64) - 1),
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a snapshot of a guest with a drive."""
    folder = tmp_path_factory.mktemp("hostile")
    disk = folder / "disk"
    disk.write_bytes(bytes(1 << 20))
    with ExitStack() as stack:
        vmm = booted(stack, folder / "0", drive=disk)
        create(vmm, folder, "s")
    return folder


def places(value: object, path: tuple[Value, ...] = ()) -> Iterator[tuple[Value, ...]]:
    """The way to every leaf of a plain value."""
    match value:
        case dict():
            for key, item in value.items():
                yield from places(item, (*path, key))
        case tuple() if value:
            for index, item in enumerate(value):
                yield from places(item, (*path, index))
        case _:
            yield path


def changed(value: Value, path: tuple[Value, ...], to: object) -> Value:
    if not path:
        return to
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, first: changed(value[first], rest, to)}
    return (*value[:first], changed(value[first], rest, to), *value[first + 1 :])


def lie(file: SnapshotFile, data: st.DataObject) -> SnapshotFile:
    """The file with one field of one record another."""
    at = data.draw(st.integers(0, len(file.entries) - 1))
    entry = file.entries[at]
    where = data.draw(st.sampled_from(list(places(entry.fields))))
    fields = changed(dict(entry.fields), where, data.draw(LIES))
    entries = list(file.entries)
    entries[at] = replace(entry, fields=fields)
    return SnapshotFile(file.header, tuple(entries))


async def try_to_load(folder: Path, name: str) -> str | None:
    """The reason why it was refused; None: it was loaded, and is gone again."""
    memory = p.MemBackendConfig(str(folder / "s.mem"), p.MemBackendType.FILE)
    params = p.SnapshotLoadParams(
        str(folder / name), memory, False, False, (), None, False
    )
    try:
        loaded = await load(params, lambda _line: None)
    except ConfigError as error:
        return str(error)
    with trio.CancelScope(shield=True):
        await loaded.board.close()
    for file in loaded.resources.files():
        file.close()
    loaded.close()
    return None


def test_the_good_one_loads(good: Path) -> None:
    assert trio.run(try_to_load, good, "s.state") is None


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_one_lie_is_refused_with_a_reason_or_does_no_harm(
    good: Path, data: st.DataObject
) -> None:
    file = decode((good / "s.state").read_bytes())
    (good / "lie.state").write_bytes(encode(lie(file, data)))
    reason = trio.run(try_to_load, good, "lie.state")
    assert reason is None or reason.startswith("Failed to restore from snapshot: ")
