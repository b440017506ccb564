"""A guest whose memory a page server has, saved again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.helpers.program import ROOT
from tests.kvm.test_snapshot import (
    assert_alphabet,
    booted,
    copy_data,
    create,
    goes_on,
    printed,
    process,
)
from vmmd.state.snapshot import decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def page_server(sock: Path, memory: Path) -> Iterator[None]:
    """A process that serves one monitor from a memory file."""
    command = (sys.executable, "-m", "tests.helpers.page_server")
    server = subprocess.Popen(
        [*command, str(sock), str(memory)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield
    finally:
        server.kill()
        server.communicate()


def test_a_diff_onto_the_diff_that_was_served_is_still_one(tmp_path: Path) -> None:
    """The server had its parent's pages; the file has not, and must say so."""
    base, diff, whole = (tmp_path / f"{name}.mem" for name in ("b", "d", "whole"))
    with ExitStack() as stack:
        first = booted(stack, tmp_path / "0", track=True)
        create(first, tmp_path, "b")
        first.api.ok("PATCH", "/vm", {"state": "Resumed"})
        goes_on(first)
        create(first, tmp_path, "d", "Diff")
        said = printed(first)
        shutil.copy(base, whole)
        copy_data(diff, whole)
        stack.enter_context(page_server(tmp_path / "pages", whole))
        second = process(stack, tmp_path / "1")
        backend = {"backend_type": "Uffd", "backend_path": str(tmp_path / "pages")}
        body = {
            "snapshot_path": str(tmp_path / "d.state"),
            "mem_backend": backend,
            "track_dirty_pages": True,
            "resume_vm": True,
        }
        second.api.ok("PUT", "/snapshot/load", body)
        goes_on(second)
        create(second, tmp_path, "d", "Diff")
        assert_alphabet(said + printed(second))
    manifest = decode((tmp_path / "d.state").read_bytes()).header.manifest
    parent = decode((tmp_path / "b.state").read_bytes()).header.snapshot_id
    assert (manifest.kind, manifest.parent_id) == ("Diff", parent)
