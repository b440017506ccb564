"""Which releases a machine's state could be saved for, and at what cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.errors import ConfigError
from vmmd.frozen import dataclass
from vmmd.state.target import check_target, devices_in
from vmmd.state.translate import losses, refusal
from vmmd.state.versions import RELEASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmmd.state.snapshot import SnapshotFile
    from vmmd.state.translate import Lost


@dataclass(frozen=True, slots=True)
class Prospect:
    """A release: why it is refused, or None; and all that would be lost."""

    release: str
    refused: str | None
    lost: tuple[Lost, ...]


def outlook(
    file: SnapshotFile, classes: Sequence[type], releases: Sequence[str] = RELEASES
) -> tuple[Prospect, ...]:
    """What a create, or a translation of this file, would say for each release.

    ``file`` has newest records (``translate_up``). Nothing is changed.
    """
    return tuple(_prospect(file, classes, release) for release in releases)


def _prospect(file: SnapshotFile, classes: Sequence[type], release: str) -> Prospect:
    lost = losses(file, release, classes)
    try:
        check_target(release, devices_in(file.entries))
    except ConfigError as error:
        return Prospect(release, str(error), lost)
    return Prospect(release, refusal(lost), lost)
