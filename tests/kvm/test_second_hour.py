"""README's second hour, each command as it stands there.

The kernel is a small one that prints the alphabet; paths below /tmp are below the
test's folder, and the commands are this checkout's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.helpers.commands import ROOT, environment
from tests.helpers.poll import until
from tests.helpers.unix_api import UnixApi
from tests.kvm.test_snapshot import LETTERS, assert_alphabet
from vmmd.cli.snapshot import COMMANDS
from vmmd.loop.selftest import kernel_image

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 60
VARIABLE = re.compile(
    r"(?P<anything>\.\.\.)|(?P<id>[0-9a-f]{8}-[0-9a-f-]{27})|(?P<hex>0x[0-9a-f]+)"
    r"|(?P<version>\d+\.\d+\.\d+)|(?P<unit>\b[KM]iB)|(?P<number>\d+)"
)
PATTERNS = {
    "anything": ".*",
    "id": "[0-9a-f-]{36}",
    "hex": "(0x[0-9a-f]+|[0-9]+)",
    "unit": "[KM]iB",
    "number": "[0-9]+",
}


@dataclass
class Shown:
    """A command of the README, and what it prints there."""

    command: str
    output: list[str] = field(default_factory=list)


def second_hour() -> list[Shown]:
    """What stands in the section, command by command."""
    text = (ROOT / "README.md").read_text()
    part = text[text.index("## A second hour") : text.index("## What there is")]
    found: list[Shown] = []
    for line in re.findall(r"^ {4}(.*)$", part, re.MULTILINE):
        if line.startswith("$ "):
            found.append(Shown(line[2:]))
        elif found[-1].command.endswith("\\"):
            found[-1].command += f"\n{line}"
        else:
            found[-1].output.append(line)
    return found


def pattern(lines: list[str]) -> str:
    """What prints such lines, with other figures; ``...`` is any number of them."""
    parts = [
        "(.*\n)*" if line.strip() == "..." else _line_pattern(line) + "\n"
        for line in lines
    ]
    return "".join(parts)


def _line_pattern(line: str) -> str:
    made, at = "", 0
    for found in VARIABLE.finditer(line):
        same = re.escape(found[0])
        made += re.escape(line[at : found.start()])
        made += PATTERNS.get(str(found.lastgroup), same)
        at = found.end()
    return made + re.escape(line[at:])


class Shell:
    """Runs the README's commands in a folder that stands for /tmp."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        (folder / "g" / "cloud").mkdir(parents=True)
        (folder / "g" / "cloud" / "bzimage").write_bytes(kernel_image(LETTERS))
        (folder / "g" / "cloud" / "initrd").write_bytes(b"initrd" * 1000)
        (folder / "root.ext4").write_bytes(bytes(1 << 20))
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name in ("vmmd", "firecracker"):
            code = f"import sys; from vmmd.__main__ import {name}; sys.exit({name}())"
            script = self._bin / name
            script.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
            script.chmod(0o755)
        self.consoles: list[Path] = []

    def _started(self, command: str) -> tuple[list[str], dict[str, str]]:
        here = command.replace("/tmp/", f"{self._folder}/")
        here = here.replace(".venv/bin/", f"{self._bin}/")
        return ["sh", "-c", here], environment() | {"G": str(self._folder / "g")}

    def run(self, shown: Shown) -> None:
        """Run a command to its end and compare what it prints."""
        words, env = self._started(shown.command)
        done = subprocess.run(
            words,
            env=env,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        differs = " snapshot diff " in shown.command
        assert done.returncode == int(differs), shown.command + done.stderr
        printed = done.stdout.replace(f"{self._folder}/", "/tmp/")
        assert re.fullmatch(pattern(shown.output), printed), (shown, printed)

    def start(self, shown: Shown) -> None:
        """Run a command beside the others: it has a guest's console."""
        words, env = self._started("exec " + shown.command)
        console = self._folder / f"console{len(self.consoles)}"
        self.consoles.append(console)
        with console.open("wb") as out:
            process = subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=out
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)


def test_every_command_does_what_it_shows(tmp_path: Path) -> None:
    commands = second_hour()
    with ExitStack() as stack:
        shell = Shell(tmp_path, stack)
        for shown in commands:
            if ".venv/bin/vmmd run " in shown.command:
                shell.start(shown)
                console = shell.consoles[-1]
                until(lambda: console.read_text() != "")  # noqa: B023 (called at once)
            else:
                shell.run(shown)
        first, clone = shell.consoles
        before = len(clone.read_text())
        until(lambda: len(clone.read_text()) > before + 3)
        assert_alphabet(first.read_text())
        assert_alphabet(clone.read_text())
        with closing(UnixApi(tmp_path / "vm.sock")) as api:
            assert api.ok("GET", "/vm/config")
    names = {name for name in COMMANDS if f" snapshot {name} " in str(commands)}
    assert names == set(COMMANDS)


def test_figures_may_differ_words_and_versions_may_not() -> None:
    shown = pattern(["a 1.5 MiB of 0x10", "...", "  b: yes"])
    assert re.fullmatch(pattern(["v1.5.0"]), "v1.5.0\n")
    assert not re.fullmatch(pattern(["v1.5.0"]), "v1.5.1\n")
    assert re.fullmatch(shown, "a 22.0 KiB of 0xffff\n  b: yes\n")
    assert re.fullmatch(shown, "a 2.7 MiB of 9\nmore\nlines\n  b: yes\n")
    assert not re.fullmatch(shown, "a 2.7 MiB of 0x1\n  b: no\n")
    assert not re.fullmatch(shown, "a 2.7 MiB of 0x1\n")
