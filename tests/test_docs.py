"""The documents name what is there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from vmmd.http.config_file import parse_config

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
    # A function or class of Python, a field or constant, a function of C.
    defined = rf"(def|class) {last}\b|^ *(self\.)?{last}\b.*=|^[a-z].*[ *]{last}\("
    found = re.search(defined, SOURCE, re.MULTILINE)
    assert found, f"ARCHITECTURE.md names `{name}`"


def test_readme_names_make_targets_that_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"make ([a-z][a-z-]+)", readme))
    assert named <= set(targets)


def _block(language: str) -> str:
    """The README's block of code in that language."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_readme_s_library_use_does_what_it_shows() -> None:
    test = doctest.DocTestParser().get_doctest(
        _block("python"), {}, "README.md", None, None
    )
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_readme_s_config_file_is_one() -> None:
    config = parse_config(_block("json").encode())
    assert config.boot_source.initrd_path is not None
    assert [drive.is_root_device for drive in config.drives] == [True]


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


def test_the_threat_model_names_tests_that_exist() -> None:
    text = (ROOT / "THREAT-MODEL.md").read_text()
    named = re.findall(r"`((?:tests|fuzz)/[^`]*)`", text)
    assert named
    for pattern in named:
        assert [*ROOT.glob(pattern)], f"THREAT-MODEL.md names {pattern}"
