"""Paths of our own, which Firecracker does not have."""

from __future__ import annotations

import json

import pytest

from vmmd import actions as a
from vmmd import snapshot_params as p
from vmmd.http.routes import ApiFault, parse

BODY = {
    "snapshot_path": "s",
    "mem_backend": {"backend_path": "m", "backend_type": "File"},
}


def test_a_load_may_name_other_files_for_drives() -> None:
    overrides = [{"drive_id": "root", "path_on_host": "/copy"}]
    body = json.dumps({**BODY, "drive_overrides": overrides}).encode()
    action = parse("PUT", "/vmmd/snapshot/load", body).action
    assert isinstance(action, a.LoadSnapshot)
    assert action.params.drive_overrides == (p.DriveOverride("root", "/copy"),)


def test_without_them_it_is_the_same_as_on_firecrackers_path() -> None:
    body = json.dumps(BODY).encode()
    ours = parse("PUT", "/vmmd/snapshot/load", body)
    assert ours == parse("PUT", "/snapshot/load", body)


def test_firecrackers_own_object_stays_as_it_is() -> None:
    body = json.dumps({**BODY, "drive_overrides": []}).encode()
    with pytest.raises(ApiFault, match="unknown field `drive_overrides`"):
        parse("PUT", "/snapshot/load", body)


@pytest.mark.parametrize("path", ["/vmmd", "/vmmd/x", "/vmmd/snapshot", "/vmmd/x/y"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(ApiFault, match=f"Invalid request method .* PUT {path}."):
        parse("PUT", path, b"{}")
