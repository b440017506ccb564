"""Records from version to version, in memory: up when loaded, down for a target.

Down, a record goes first and what is inside it after; up the other way round, so
that a record's own functions see what is inside in its newest version always.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from vmmd.errors import ConfigError, SnapshotError
from vmmd.frozen import dataclass
from vmmd.state.codec import TAG, Entry, check_plain, kind_of, named, schema, unpack
from vmmd.state.record import Refusal
from vmmd.state.snapshot import Header, SnapshotFile
from vmmd.state.versions import CURRENT, version_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vmmd.state.fields import Value
    from vmmd.state.record import Downgrade, Fields, Loss, Upgrade

_SERIALIZE = (
    "Cannot serialize the microVM state:"
    " A versioned serialization/deserialization error occurred: "
)


@dataclass(frozen=True, slots=True)
class Lost:
    """A loss, and whose: ``paths`` lead from the record to what is inside it."""

    kind: str
    id: str
    paths: tuple[str, ...]
    loss: Loss

    def __str__(self) -> str:
        """A line for people."""
        return f"{named(self.kind, self.id)}: {', '.join(self.paths)}: {self.loss.text}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file whose records are the newest: ``(id, record)`` in the file's order.

    ``notes`` are lines for the log: what an older file does not say.
    """

    header: Header
    records: tuple[tuple[str, Any], ...]
    notes: tuple[str, ...]


class TranslationError(ConfigError):
    """The state has something that the target cannot hold; Firecracker's text."""


def upgraded(file: SnapshotFile, classes: Iterable[type]) -> Loaded:
    """All records of a file, of any version up to the newest, as ``classes`` are.

    It may be one that was only parsed. SnapshotError names the record that is not
    known, too new or wrong.
    """
    up = _Up(reachable(classes))
    records: list[tuple[str, object]] = []
    for entry in file.entries:
        cls = _class_of(up.classes, entry)
        if cls is None:
            check_plain(entry)
        else:
            records.append((entry.id, _newest_record(up, entry, cls)))
    return Loaded(file.header, tuple(records), tuple(up.notes))


def _newest_record(up: _Up, entry: Entry, cls: type) -> object:
    try:
        return unpack(entry, cls)  # mostly all is new already: this is what tells
    except SnapshotError:
        check_plain(entry)
        return unpack(up.entry(entry), cls)


def translate_up(file: SnapshotFile, classes: Iterable[type]) -> SnapshotFile:
    """The file with every record that is known in its newest version.

    SnapshotError as :func:`upgraded`.
    """
    up = _Up(reachable(classes))
    entries = tuple(
        entry if _class_of(up.classes, entry) is None else up.entry(entry)
        for entry in file.entries
    )
    header = dataclasses.replace(file.header, target_version=CURRENT)
    return SnapshotFile(header, entries)


def translate_down(
    file: SnapshotFile, target: str, classes: Iterable[type]
) -> tuple[SnapshotFile, tuple[Lost, ...]]:
    """A file of newest records as ``target`` has them, and what that loses.

    ``target`` is one of ``versions.RELEASES``. TranslationError with the first
    loss that is refused.
    """
    translated, lost = _downgraded(file, target, classes)
    if (text := refusal(lost)) is not None:
        raise TranslationError(text)
    return translated, lost


def refusal(lost: Iterable[Lost]) -> str | None:
    """Firecracker's text for the first loss that is refused, if there is one."""
    for item in lost:
        if isinstance(item.loss, Refusal):
            prefix = _SERIALIZE + item.loss.layer if item.loss.layer else ""
            return prefix + item.loss.text
    return None


def losses(
    file: SnapshotFile, target: str, classes: Iterable[type]
) -> tuple[Lost, ...]:
    """What :func:`translate_down` would lose or be refused for: all of it."""
    return _downgraded(file, target, classes)[1]


def _downgraded(
    file: SnapshotFile, target: str, classes: Iterable[type]
) -> tuple[SnapshotFile, tuple[Lost, ...]]:
    if target == CURRENT:
        return file, ()
    down = _Down(reachable(classes), target)
    entries = [
        entry if _class_of(down.classes, entry) is None else down.entry(entry)
        for entry in file.entries
    ]
    header = dataclasses.replace(file.header, target_version=target)
    kept = tuple(entry for entry in entries if entry is not None)
    return SnapshotFile(header, kept), tuple(down.lost)


def _class_of(classes: Mapping[str, type], entry: Entry) -> type | None:
    """The class of an entry; None if it is not known and need not be."""
    cls, name = classes.get(entry.kind), named(entry.kind, entry.id)
    if cls is None:
        if entry.optional:
            return None
        raise SnapshotError(f"{name}: records of this kind are not known")
    if entry.version > (newest := kind_of(cls).version):
        text = f"version {entry.version} is newer than {newest}"
        raise SnapshotError(f"{name}: {text}")
    return cls


class _Up:
    """Records to their newest versions; ``notes`` are for the log."""

    def __init__(self, classes: Mapping[str, type]) -> None:
        self.classes = classes
        self.notes: list[str] = []

    def entry(self, entry: Entry) -> Entry:
        """The newest version. SnapshotError if the fields are not what they say."""
        name = named(entry.kind, entry.id)
        try:
            fields = self._record(entry.kind, entry.version, entry.fields)
        except SnapshotError as error:
            raise SnapshotError(f"{name}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{name}: is no version {entry.version} ({error!r})"
            raise SnapshotError(text) from error
        version = kind_of(self.classes[entry.kind]).version
        return Entry(entry.kind, entry.id, version, fields)

    def _record(self, kind: str, version: int, fields: Fields) -> Fields:
        fields = {name: self._inner(value) for name, value in fields.items()}
        cls = self.classes[kind]
        steps: Mapping[int, Upgrade] = getattr(cls, "UPGRADES", {})
        for step in range(version, kind_of(cls).version):
            fields, notes = steps[step](fields)
            self.notes += notes
        return dict(sorted(fields.items()))

    def _inner(self, value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(map(self._inner, value))
        if not isinstance(value, dict):
            return value
        kind, version = _tag(value)
        newest = kind_of(self.classes[kind]).version
        if not 0 < version <= newest:
            raise SnapshotError(f"{kind}: version {version} is not 1 to {newest}")
        return {TAG: f"{kind}/{newest}", **self._record(kind, version, _bare(value))}


class _Down:
    """Newest records to the versions of one release; ``lost`` is what that costs."""

    def __init__(self, classes: Mapping[str, type], target: str) -> None:
        self.classes = classes
        self._target = target
        self._whose = ("", "")
        self.lost: list[Lost] = []

    def entry(self, entry: Entry) -> Entry | None:
        """The version that the target knows, or None if it has no such record."""
        self._whose = (entry.kind, entry.id)
        version = version_for(entry.kind, self._target)
        fields = self._record(entry.kind, entry.fields, "")
        if fields is None:
            return None
        return Entry(entry.kind, entry.id, version or 1, fields, version == 0)

    def _record(self, kind: str, fields: Fields, path: str) -> Fields | None:
        cls, version = self.classes[kind], version_for(kind, self._target)
        steps: Mapping[int, Downgrade] = getattr(cls, "DOWNGRADES", {})
        for step in range(kind_of(cls).version, version, -1):
            if step == 1 and step not in steps:
                break
            older, losses = steps[step](fields)
            self.lost += (self._lost(loss, path) for loss in losses)
            if older is None:
                return None
            fields = older
        return {name: self._inner(fields[name], path + name) for name in sorted(fields)}

    def _lost(self, loss: Loss, path: str) -> Lost:
        return Lost(*self._whose, tuple(path + field for field in loss.fields), loss)

    def _inner(self, value: Value, path: str) -> Value:
        if isinstance(value, tuple):
            return tuple(self._inner(v, f"{path}[{i}]") for i, v in enumerate(value))
        if not isinstance(value, dict):
            return value
        kind, _ = _tag(value)
        older = self._record(kind, _bare(value), f"{path}.")
        if older is None:
            return None
        return {TAG: f"{kind}/{version_for(kind, self._target) or 1}", **older}


def _tag(value: Mapping[str, Any]) -> tuple[str, int]:
    kind, _, version = value[TAG].partition("/")
    return kind, int(version)


def _bare(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in value if name != TAG}


def reachable(classes: Iterable[type]) -> dict[str, type]:
    """These record classes and those of the records inside them, by kind."""
    found: dict[str, type] = {}
    waiting = list(classes)
    while waiting:
        cls = waiting.pop()
        if (kind := kind_of(cls).kind) not in found:
            found[kind] = cls
            waiting += schema(cls).inner
    return found
