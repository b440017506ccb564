"""The table of releases and record versions, against the code."""

from __future__ import annotations

import pytest

from tests.helpers.records import record_classes
from vmmd import FIRECRACKER_VERSION
from vmmd.state.codec import kind_of
from vmmd.state.versions import CHANGES, CURRENT, RELEASES, data_version, version_for


def test_releases_are_every_minor_version_up_to_ours() -> None:
    assert RELEASES[:4] == ("0.23.0", "0.24.0", "0.25.0", "1.0.0")
    assert CURRENT.rpartition(".")[0] == FIRECRACKER_VERSION.rpartition(".")[0]
    assert len(RELEASES) == 3 + int(CURRENT.split(".")[1]) + 1


@pytest.mark.parametrize(
    ("release", "number"),
    [
        ("0.23.0", 1),
        ("0.24.0", 2),
        ("0.25.0", 3),
        ("1.0.0", 4),
        ("1.1.0", 5),
        ("1.2.0", 6),
        ("1.3.0", 7),
        ("1.4.0", 8),
        ("1.5.0", 9),
        ("1.6.0", 10),
        ("0.22.0", None),
        ("1.3.3", None),
        ("1.1.0-dev", None),
        ("2.0.0", None),
        ("", None),
    ],
)
def test_data_versions(release: str, number: int | None) -> None:
    assert data_version(release) == number


def test_the_table_has_every_record_in_its_newest_version() -> None:
    newest = {kind: kind_of(cls).version for kind, cls in record_classes().items()}
    assert {kind: version_for(kind, CURRENT) for kind in CHANGES} == newest


def test_changes_are_releases_in_order() -> None:
    for changes in CHANGES.values():
        places = [RELEASES.index(release) for release in changes]
        assert places == sorted(set(places))


def test_every_step_between_versions_has_its_two_functions() -> None:
    for kind, cls in record_classes().items():
        newest = kind_of(cls).version
        assert set(getattr(cls, "UPGRADES", {})) == set(range(1, newest)), kind
        downgrades = set(getattr(cls, "DOWNGRADES", {}))
        assert downgrades - {1} == set(range(2, newest + 1)), kind


@pytest.mark.parametrize(
    ("kind", "release", "version"),
    [
        ("vcpu", "0.23.0", 1),
        ("vcpu", "0.25.0", 2),
        ("vcpu", "1.1.0", 2),
        ("vcpu", "1.2.0", 3),
        ("block", "0.24.0", 1),
        ("block", "0.25.0", 2),
        ("block", "1.0.0", 3),
        ("ring", "0.25.0", 1),
        ("ring", "1.0.0", 2),
        ("vm_info", "1.1.0", 1),
        ("vm_info", "1.2.0", 2),
        ("net", "1.1.0", 1),
        ("net", "1.2.0", 2),
        ("vmgenid", "1.7.0", 0),
        ("vmgenid", "1.8.0", 1),
        ("serial", "1.15.0", 0),
        ("serial", "1.16.0", 1),
    ],
)
def test_versions_are_those_of_firecrackers_types(
    kind: str, release: str, version: int
) -> None:
    assert version_for(kind, release) == version
