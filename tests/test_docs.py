"""The documents name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "\n".join(
    path.read_text()
    for pattern in ("*.py", "*.c")
    for path in sorted((ROOT / "vmmd").rglob(pattern))
    if path.name != "_native.c"
)
CATEGORIES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _walks() -> set[str]:
    """The names in backticks in the part of ARCHITECTURE.md that walks."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    part = text[text.index("## Walks") : text.index("## Where")]
    names = re.findall(r"`([A-Za-z_][\w.]*)`", part)
    return {name for name in names if not name.endswith((".c", ".md"))}


@pytest.mark.parametrize("name", sorted(_walks()))
def test_the_walks_name_what_exists(name: str) -> None:
    last = name.rsplit(".", 1)[-1]
    found = re.search(rf"\b{last}\b", SOURCE)
    assert found, f"ARCHITECTURE.md names `{name}`"


def test_readme_names_make_targets_that_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"make ([a-z][a-z-]+)", readme))
    assert named <= set(targets)


def test_the_changelog_is_a_changelog() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    releases = [line for line in lines if line.startswith("## ")]
    for line in releases:
        assert re.fullmatch(
            r"## \[(Unreleased|\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d)\]?", line
        )
    kinds = {line[4:] for line in lines if line.startswith("### ")}
    assert kinds <= CATEGORIES


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
        assert (ROOT / target).exists(), f"{name} links to {target}"
