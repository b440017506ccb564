"""The unit file, as systemd reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from vmmd.cli.arguments import Parser
from vmmd.cli.flags import ARGUMENTS

UNIT = Path(__file__).parents[2] / "systemd" / "vmmd@.service"


def service() -> dict[str, str]:
    """The settings of the unit's [Service] that are given once."""
    parser = RawConfigParser(strict=False)
    parser.read(UNIT)
    return dict(parser["Service"])


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (apt install systemd)")
    # The command need not be installed where the tests run.
    text = UNIT.read_text().replace("/usr/bin/firecracker", sys.executable)
    (tmp_path / "vmmd@.service").write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "vmmd@.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_is_one_that_the_command_takes() -> None:
    program, *argv = service()["execstart"].split()
    assert program == "/usr/bin/firecracker"
    values = Parser(ARGUMENTS).parse(argv)
    assert values.get("id") == "%i"
    assert values.get("config-file") == "/etc/vmmd/%i.json"
    folder = service()["runtimedirectory"]
    assert values.get("api-sock") == f"/run/{folder}/api.sock"


def test_the_unit_is_ready_when_the_process_says_so() -> None:
    settings = service()
    assert settings["type"] == "notify"
    assert re.search(r"\bSIGTERM\b", settings["successexitstatus"])
