"""``--describe-snapshot`` and ``--snapshot-version``, with Firecracker's texts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack
import pytest

from tests.helpers.state_file import HEADER
from vmmd.cli.firecracker import main
from vmmd.state.crc32c import crc32c
from vmmd.state.snapshot import MAGIC, MAX_FILE_SIZE, Entry, SnapshotFile, encode
from vmmd.state.versions import CURRENT

if TYPE_CHECKING:
    from pathlib import Path

    from vmmd.loop.options import Options

TIME = re.compile(r"^\S+ \[anonymous-instance:main\] ", re.MULTILINE)
SUCCESS = "Firecracker exiting successfully. exit_code=0\n"
FAILURE = "Firecracker exiting with error. exit_code=1\n"
HEADLESS = MAGIC + b"\x80"
INVALID = (
    "When printing Snapshot Data format: Invalid data format version of snapshot file: "
)


def firecracker(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, standard output without times, standard error."""

    def never(_options: Options, _listener: object) -> int:
        raise AssertionError("nothing is to be started")

    code = main(list(argv), never)
    out, err = capfd.readouterr()
    return code, TIME.sub("", out), err


def state_file(folder: Path, data: bytes) -> str:
    """A file of these bytes."""
    path = folder / "vm.state"
    path.write_bytes(data)
    return str(path)


def test_the_release_of_a_state_file(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    header = replace(HEADER, target_version="1.5.0")
    path = state_file(tmp_path, encode(SnapshotFile(header, ())))
    outcome = firecracker(capfd, "--describe-snapshot", path)
    assert outcome == (0, f"v1.5.0\n{SUCCESS}", "")


def test_a_newer_file_is_described(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    unpacker = msgpack.Unpacker()
    unpacker.feed(encode(SnapshotFile(HEADER, ()))[len(MAGIC) :])
    newer = {**unpacker.unpack(), "format": 9, "target_version": "3.2.0", "zone": 1}
    data = MAGIC + msgpack.packb(newer) + b"what comes after" + bytes(4)
    path = state_file(tmp_path, data)
    outcome = firecracker(capfd, "--describe-snapshot", path)
    assert outcome == (0, f"v3.2.0\n{SUCCESS}", "")


def test_the_newest_release(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = firecracker(capfd, "--snapshot-version")
    assert outcome == (0, f"v{CURRENT}\n{SUCCESS}", "")


@pytest.mark.parametrize(
    ("data", "text", "debug"),
    [
        (
            b"",
            "IO Error: File too short to contain CRC",
            'Io(Custom { kind: UnexpectedEof, error: "File too short to contain CRC" })',
        ),
        (
            bytes(64),
            "An error occurred during bitcode serialization: bitcode error",
            'Bitcode(Error("bitcode error"))',
        ),
        (
            bytes(MAX_FILE_SIZE + 1),
            "Snapshot size exceeds limit of 10000000 bytes",
            "SizeLimitExceeded(10000000)",
        ),
        (
            HEADLESS + crc32c(HEADLESS).to_bytes(4, "little"),
            "header: arch: is missing",
            'Vmmd("header: arch: is missing")',
        ),
        (
            HEADLESS + bytes(4),
            "An error occurred during bitcode serialization: bitcode error",
            'Bitcode(Error("bitcode error"))',
        ),
        (
            encode(SnapshotFile(HEADER, (Entry("k", "", 1, {"a": 1}),)))[:-3],
            "An error occurred during bitcode serialization: bitcode error",
            'Bitcode(Error("bitcode error"))',
        ),
    ],
)
def test_what_is_said_of_other_files(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    data: bytes,
    text: str,
    debug: str,
) -> None:
    path = state_file(tmp_path, data)
    code, out, err = firecracker(capfd, "--describe-snapshot", path)
    assert (code, out) == (1, f"{INVALID}{text}\n{FAILURE}")
    assert err == f"Error: PrintSnapshotDataFormat(SnapshotVersion({debug}))\n"


def test_a_file_that_cannot_be_opened_or_read(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = firecracker(capfd, "--describe-snapshot", str(tmp_path / "no"))
    system = 'Os { code: 2, kind: NotFound, message: "No such file or directory" }'
    assert code == 1
    assert out == (
        "When printing Snapshot Data format: Unable to open snapshot state file: "
        f"No such file or directory (os error 2)\n{FAILURE}"
    )
    assert err == f"Error: PrintSnapshotDataFormat(OpenSnapshot({system}))\n"
    code, out, err = firecracker(capfd, "--describe-snapshot", str(tmp_path))
    system = 'Io(Os { code: 21, kind: IsADirectory, message: "Is a directory" })'
    assert (code, out) == (
        1,
        f"{INVALID}IO Error: Is a directory (os error 21)\n{FAILURE}",
    )
    assert err == f"Error: PrintSnapshotDataFormat(SnapshotVersion({system}))\n"
