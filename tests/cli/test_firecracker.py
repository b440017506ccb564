"""The ``firecracker`` command up to its socket: texts, exit codes, options."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from vmmd import FIRECRACKER_VERSION
from vmmd.cli.firecracker import main
from vmmd.errors import ExitError

if TYPE_CHECKING:
    from pathlib import Path

    from vmmd.loop.options import Options

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} ")
MAIN = "[anonymous-instance:main] "
RUNNING = f"{MAIN}Running Firecracker v{FIRECRACKER_VERSION}"
SUCCESS = f"{MAIN}Firecracker exiting successfully. exit_code=0"


@dataclass
class Daemon:
    """Stands for the machine: keeps what it was given and ends as told."""

    end: int | ExitError = 0
    options: list[Options] = field(default_factory=list)
    listening: list[bool] = field(default_factory=list)

    def run(self, options: Options, listener: socket.socket | None) -> int:
        self.options.append(options)
        self.listening.append(listener is not None)
        if listener is not None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(options.api_sock)
            listener.close()
        options.logger.close()
        if isinstance(self.end, ExitError):
            raise self.end
        return self.end


@dataclass
class Outcome:
    code: int
    stdout: list[str]
    stderr: list[str]
    daemon: Daemon


@dataclass
class Command:
    """Runs the command in an empty folder."""

    capfd: pytest.CaptureFixture[str]

    def __call__(self, *argv: str, end: int | ExitError = 0) -> Outcome:
        daemon = Daemon(end)
        code = main(list(argv), daemon.run)
        out, err = self.capfd.readouterr()
        stdout = [TIME.sub("", line, count=1) for line in out.splitlines()]
        return Outcome(code, stdout, err.splitlines(), daemon)


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capfd)


def failure(code: int, text: str, debug: str, *before: str) -> tuple[object, ...]:
    end = f"{MAIN}Firecracker exiting with error. exit_code={code}"
    return code, [*before, MAIN + text, end], [f"Error: {debug}"]


def seen(outcome: Outcome) -> tuple[object, ...]:
    return outcome.code, outcome.stdout, outcome.stderr


@pytest.mark.parametrize(
    "argv", [["--version"], ["--version", "--bogus"], ["--id", "x", "--version"]]
)
def test_version(command: Command, argv: list[str]) -> None:
    stdout = [f"Firecracker v{FIRECRACKER_VERSION}", "", SUCCESS]
    assert seen(command(*argv)) == (0, stdout, [])


def test_help(command: Command) -> None:
    outcome = command("x", "-h")
    assert (outcome.code, outcome.stderr) == (0, [])
    assert outcome.stdout[:3] == [
        f"Firecracker v{FIRECRACKER_VERSION}",
        "",
        "optional arguments:",
    ]
    names = [line.split()[0] for line in outcome.stdout[3:-1]]
    assert names == sorted(names)
    assert len(names) == 24
    size = "--http-api-max-payload-size <http-api-max-payload-size>"
    text = "Http API request payload max size, in bytes."
    assert f'  {size}   {text} [default: "51200"]' in outcome.stdout


def test_wrong_arguments(command: Command) -> None:
    assert seen(command("--bogus")) == failure(
        153,
        "Arguments parsing error: Found argument 'bogus' which wasn't expected, or "
        "isn't valid in this context. \\n\\nFor more information try --help.",
        'ParseArguments(UnexpectedArgument("bogus"))',
    )


@pytest.mark.parametrize("level", ["loud", ""])
def test_no_such_level(command: Command, level: str) -> None:
    assert seen(command("--level", level)) == failure(
        152,
        "Invalid value for logger level: Failed to parse string to level filter: "
        f"{level}.Possible values: [Error, Warning, Info, Debug]",
        f'InvalidLogLevel(LevelFilterFromStrError("{level}"))',
    )


BITCODE = "Bitcode deserialization failed: bitcode error"
NOT_FOUND = 'Os { code: 2, kind: NotFound, message: "No such file or directory" }'


def test_a_log_file_that_cannot_be(command: Command) -> None:
    assert seen(command("--log-path", "no/log")) == failure(
        1,
        "Could not initialize logger: Failed to open target file: No such file or "
        "directory (os error 2)",
        f"LoggerInitialization(LoggerUpdateError({NOT_FOUND}))",
    )


def test_a_metrics_file_that_cannot_be(command: Command) -> None:
    reason = "No such file or directory (os error 2)"
    assert seen(command("--metrics-path", "no/m")) == failure(
        1,
        "Could not initialize metrics: Cannot initialize the metrics system due to "
        f"bad user input: {reason}",
        f'MetricsInitialization(InitializationFailure("{reason}"))',
        RUNNING,
    )


def test_a_filter_that_is_not_there(command: Command) -> None:
    assert seen(command("--seccomp-filter", "none")) == failure(
        1,
        "Seccomp error: Filter file open error: No such file or directory (os error 2)",
        f"SeccompFilter(FileOpen({NOT_FOUND}))",
        RUNNING,
    )


@pytest.mark.parametrize(
    ("content", "text", "debug"),
    [
        (
            None,
            "Failed to read input: Is a directory (os error 21)",
            'InputRead(Os { code: 21, kind: IsADirectory, message: "Is a directory" })',
        ),
        (b"", BITCODE, 'Bitcode(Error("bitcode error"))'),
        (b'{"vmm": {}}', BITCODE, 'Bitcode(Error("bitcode error"))'),
    ],
)
def test_a_filter_that_is_none(
    command: Command, tmp_path: Path, content: bytes | None, text: str, debug: str
) -> None:
    path = tmp_path / "filter"
    path.mkdir() if content is None else path.write_bytes(content)
    assert seen(command("--seccomp-filter", "filter")) == failure(
        1,
        f"Seccomp error: Filter deserialization failed: {text}",
        f"SeccompFilter(Deserialization({debug}))",
        RUNNING,
    )


def test_a_socket_in_use(command: Command, tmp_path: Path) -> None:
    (tmp_path / "busy").write_text("")
    assert seen(command("--api-sock", "busy")) == failure(
        1,
        "RunWithApiError error: Failed to open the API socket at: busy. Check that "
        "it is not already used.",
        'RunWithApi(FailedToBindSocket("busy"))',
        RUNNING,
    )


@pytest.mark.parametrize(
    ("argv", "panic"),
    [
        (["--id", "a_b"], "Invalid instance ID: InvalidChar('_', 1)"),
        (["--id", "a'"], "Invalid instance ID: InvalidChar('\\'', 1)"),
        (["--id", 'é"'], "Invalid instance ID: InvalidChar('\"', 1)"),
        (["--id", ""], "Invalid instance ID: InvalidLen(0, 1, 64)"),
        (["--id", "é" * 33], "Invalid instance ID: InvalidLen(66, 1, 64)"),
        (
            ["--config-file", "none"],
            f"Unable to open or read from the configuration file: {NOT_FOUND}",
        ),
        (
            ["--metadata", "none"],
            f"Unable to open or read from the mmds content file: {NOT_FOUND}",
        ),
        (
            ["--config-file", "latin"],
            "Unable to open or read from the configuration file: Error { kind: "
            'InvalidData, message: "stream did not contain valid UTF-8" }',
        ),
        (
            ["--http-api-max-payload-size", "abc"],
            "'http-api-max-payload-size' parameter expected to be of 'usize' type.: "
            "ParseIntError { kind: InvalidDigit }",
        ),
        (
            ["--mmds-size-limit", ""],
            "'mmds-size-limit' parameter expected to be of 'usize' type.: "
            "ParseIntError { kind: Empty }",
        ),
        (
            ["--start-time-us", "18446744073709551616"],
            "'start-time-us' parameter expected to be of 'u64' type.: "
            "ParseIntError { kind: PosOverflow }",
        ),
        (
            ["--parent-cpu-time-us", "-1"],
            "'parent-cpu-time-us' parameter expected to be of 'u64' type.: "
            "ParseIntError { kind: InvalidDigit }",
        ),
    ],
)
def test_values_for_which_firecracker_panics(
    command: Command, tmp_path: Path, argv: list[str], panic: str
) -> None:
    (tmp_path / "latin").write_bytes(b"\xff")
    outcome = command(*argv, "--api-sock", "api")
    assert outcome.code == 1
    assert f"{MAIN}Firecracker panicked: {panic}" in outcome.stdout
    assert outcome.stderr == [f"Error: {panic}"]
    assert not os.path.lexists("api")


def test_the_start(command: Command) -> None:
    outcome = command("--api-sock", "a\tb")
    listening = f'{MAIN}Listening on API socket ("a\\tb").'
    assert seen(outcome) == (0, [RUNNING, listening, SUCCESS], [])
    (options,) = outcome.daemon.options
    assert (options.instance_id, options.api_sock) == ("anonymous-instance", "a\tb")
    assert options.api_enabled
    assert options.config_text is None
    assert options.metadata_text is None
    assert (options.max_payload_size, options.mmds_size_limit) == (51200, 51200)
    assert not options.boot_timer
    assert not options.enable_pci
    assert os.path.lexists("a\tb")  # left behind, as clients expect


def test_everything_that_can_be_given(command: Command, tmp_path: Path) -> None:
    (tmp_path / "cfg").write_text('{"é":\r\n1}', newline="")
    (tmp_path / "meta").write_text("{}")
    outcome = command(
        *("--id", "vm-É1", "--config-file", "cfg", "--metadata", "meta"),
        *("--log-path", "log", "--level", "debug", "--show-level", "--module", "fire"),
        *("--show-log-origin", "--metrics-path", "m", "--boot-timer", "--enable-pci"),
        *("--http-api-max-payload-size", "+77", "--start-time-us", "1"),
        *("--start-time-cpu-us", "2", "--parent-cpu-time-us", "3", "--api-sock", "s"),
        *("--no-seccomp",),
    )
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, [], [])
    (options,) = outcome.daemon.options
    assert options.instance_id == "vm-É1"
    assert options.config_text == '{"é":\r\n1}'
    assert options.metadata_text == "{}"
    assert options.metrics_path == "m"
    assert options.boot_timer
    assert options.enable_pci
    assert (options.max_payload_size, options.mmds_size_limit) == (77, 77)
    assert options.start_time_us == 1
    assert options.start_time_cpu_us == 2
    assert options.parent_cpu_time_us == 3
    first, *_ = (tmp_path / "log").read_text().splitlines()
    origin = r"vmmd/cli/firecracker\.py:\d+"
    pattern = rf"\[vm-É1:main:INFO:{origin}\] Running Firecracker v.*"
    assert re.fullmatch(pattern, TIME.sub("", first))


def test_without_an_api_there_is_no_socket(command: Command, tmp_path: Path) -> None:
    (tmp_path / "cfg").write_text("{}")
    outcome = command("--no-api", "--config-file", "cfg", "--api-sock", "none")
    assert outcome.daemon.listening == [False]
    assert not outcome.daemon.options[0].api_enabled
    assert not os.path.lexists("none")


@pytest.mark.parametrize("code", [1, 156])
def test_a_machine_that_ends_badly(command: Command, code: int) -> None:
    name = {1: "GenericError", 156: "SIGHUP"}[code]
    before = f'{MAIN}Listening on API socket ("s").'
    assert seen(command("--api-sock", "s", end=code)) == failure(
        code,
        f"RunWithApiError error: MicroVM stopped with an error: {name}",
        f"RunWithApi(MicroVMStoppedWithError({name}))",
        RUNNING,
        before,
    )


def test_a_machine_without_api_that_ends_badly(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "cfg").write_text("{}")
    argv = ("--no-api", "--config-file", "cfg")
    assert seen(command(*argv, end=1)) == failure(
        1,
        "RunWithoutApiError error: MicroVMStopped without an error: GenericError",
        "RunWithoutApiError(Shutdown(GenericError))",
        RUNNING,
    )


def test_a_machine_that_cannot_be_started(command: Command) -> None:
    end = ExitError("RunWithApiError error: no", "RunWithApi(No)", 1)
    outcome = command("--api-sock", "s", end=end)
    assert outcome.code == 1
    assert outcome.stdout[-2] == f"{MAIN}RunWithApiError error: no"
    assert outcome.stderr == ["Error: RunWithApi(No)"]
