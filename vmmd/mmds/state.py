"""The metadata service in a snapshot: how it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.state.record import (
    Loss,
    downgrade,
    record,
    upgrade,
    with_fields,
    without,
)

if TYPE_CHECKING:
    from vmmd.state.record import Fields, Notes


@record("mmds", 2)
class MmdsState:
    """Version and format; the data and the tokens are not saved.

    The address is in the records of the interfaces that serve it.
    """

    version: str = "V1"
    imds_compat: bool = False


@downgrade(MmdsState, 2)
def _without_imds_compat(fields: Fields) -> tuple[Fields, tuple[Loss, ...]]:
    older = without(fields, "imds_compat")
    if not fields["imds_compat"]:
        return older, ()
    text = "Target version does not support persisting the MMDS imds_compat setting."
    return older, (Loss(("imds_compat",), text),)


@upgrade(MmdsState, 1)
def _with_imds_compat(fields: Fields) -> tuple[Fields, Notes]:
    return with_fields(fields, {"imds_compat": False}), ()


@downgrade(MmdsState, 1)
def _no_mmds(_fields: Fields) -> tuple[None, tuple[Loss, ...]]:
    text = (
        "Target version does not support persisting the MMDS version."
        " The default will be used when restoring."
    )
    return None, (Loss(("version",), text),)
