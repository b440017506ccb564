"""The lab's pure parts: the archive, the cache, the script of a run."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import cache, cpio, debian
from lab.kernels import Kernel
from lab.session import Run, environment

NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z.]{1,8}){0,3}", fullmatch=True)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)


def fields(record: bytes) -> list[int]:
    """The thirteen numbers of a newc header."""
    return [int(record[at : at + 8], 16) for at in range(6, 110, 8)]


def unpacked(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of the format, written from its description: path to mode, data."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = fields(data[at : at + 110])
        name_end = at + 110 + numbers[11]
        name = data[at + 110 : name_end - 1].decode()
        body = -(-name_end // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (numbers[1], data[body : body + numbers[6]])
        at = -(-(body + numbers[6]) // 4) * 4


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6))
def test_an_archive_holds_its_files_and_their_folders(files: dict[str, bytes]) -> None:
    found = unpacked(cpio.archive(cpio.program(*item) for item in files.items()))
    for path, data in files.items():
        assert found[path] == (stat.S_IFREG | 0o755, data)
        for parent in Path(path).parents[:-1]:
            assert str(parent) in found


def test_an_archive_has_links_and_the_console() -> None:
    data = cpio.archive([cpio.console(), cpio.symlink("bin/sh", "busybox")])
    found = unpacked(data)
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"")
    at = data.index(b"dev/console") - 110
    assert fields(data[at : at + 110])[9:11] == [5, 1]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vmmd"


def test_an_entry_is_made_once(own_cache: Path) -> None:
    made: list[Path] = []

    def build(work: Path) -> None:
        (work / "file").write_text("whole")
        made.append(work)

    paths = {cache.entry("name", build) for _ in range(2)}
    assert paths == {own_cache / "name"}
    assert (own_cache / "name/file").read_text() == "whole"
    assert len(made) == 1


def test_an_entry_that_fails_leaves_nothing(own_cache: Path) -> None:
    def build(work: Path) -> None:
        (work / "file").write_text("half")
        raise cache.LabError("no network")

    with pytest.raises(cache.LabError, match="no network"):
        cache.entry("name", build)
    assert [path.name for path in own_cache.iterdir()] == ["lock"]


def test_modules_come_in_loading_order_and_unknown_ones_are_named(
    tmp_path: Path,
) -> None:
    kernel = Kernel("6.1", tmp_path)
    kernel.modules.mkdir(parents=True)
    (kernel.modules / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (kernel.modules / "modules.dep").write_text(
        "k/virtio-mmio.ko: k/virtio.ko k/virtio_ring.ko\n"
        "k/virtio_ring.ko:\nk/virtio.ko: k/virtio_ring.ko\n"
    )
    order = kernel.module_order(("virtio_mmio", "ext4", "virtio"))
    assert [path.name for path in order] == [
        "virtio_ring.ko",
        "virtio.ko",
        "virtio-mmio.ko",
    ]
    with pytest.raises(cache.LabError, match="floppy"):
        kernel.module_order(("floppy",))


@given(st.lists(WORDS, min_size=1))
def test_a_script_gives_the_command_its_arguments_unchanged(words: list[str]) -> None:
    wanted = b"".join(word.encode() + b"\0" for word in words)
    what = Run(("printf", r"%s\0", *words), Path("/"), {"A": "it's"}, None, 1.0)
    done = subprocess.run(["sh"], input=what.script().encode(), capture_output=True)
    assert done.stdout == wanted


def test_the_environment_in_the_lab_is_chosen() -> None:
    given = {"PATH": "/bin", "VMMD_X": "1", "TOKEN": "secret"}
    assert environment(given) == {
        "PATH": "/bin",
        "VMMD_X": "1",
        "VMMD_LAB": "1",
        "TMPDIR": "/tmp",
    }


def test_packages_come_from_where_this_machine_has_them() -> None:
    sources = debian.sources()
    assert sources
    assert all(Path(name).suffix in (".list", ".sources") for name in sources)
