"""The ``firecracker`` command: its arguments, start, texts and exit codes.

What is slow to import is imported where it is used, after the socket listens;
``--version`` and wrong arguments never get there.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmmd import FIRECRACKER_VERSION
from vmmd.cli.arguments import ArgumentsError, Parser, Values
from vmmd.cli.flags import ARGUMENTS
from vmmd.cli.listen import listen
from vmmd.errors import ExitError
from vmmd.loop.logger import (
    Channel,
    LevelError,
    Logger,
    LoggerUpdateError,
    parse_level,
)
from vmmd.loop.signals import watch
from vmmd.rust import debug_str, io_error, io_error_debug

TYPE_CHECKING = False  # the typing module costs a third of the start-up
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from vmmd.loop.options import Options

_ARGUMENTS_EXIT_CODE = 153
_BAD_CONFIGURATION_EXIT_CODE = 152
_INSTANCE_ID_MAX_LENGTH = 64
_U64_MAX = 0xFFFF_FFFF_FFFF_FFFF

_EXIT_CODE_NAMES = {
    1: "GenericError",
    2: "UnexpectedError",
    148: "BadSyscall",
    149: "SIGBUS",
    150: "SIGSEGV",
    151: "SIGXFSZ",
    152: "BadConfiguration",
    153: "ArgParsing",
    154: "SIGXCPU",
    155: "SIGPIPE",
    156: "SIGHUP",
    157: "SIGILL",
}


def run_daemon(options: Options, listener: socket | None) -> int:
    """Load what a machine needs and run it to its end; its exit code.

    What is imported stays, so the collector does not look at it: neither while
    it comes (a tenth of the time to the first answer) nor ever after.
    """
    import gc

    from vmmd.loop.lean import import_lean

    run: Callable[[Options, socket | None], int]
    gc.disable()
    run = import_lean("vmmd.loop.daemon").run
    gc.freeze()
    gc.enable()
    return run(options, listener)


def main(
    argv: list[str],
    run: Callable[[Options, socket | None], int] = run_daemon,
) -> int:
    """Run the command with the arguments after its name; the exit code.

    ``run`` is given what to run and the socket, which listens already (None
    with ``--no-api``). What it returns or the ExitError it raises is the end.
    """
    logger = Logger()
    log = logger.channel("main", "firecracker")
    try:
        if (started := _prepare(argv, logger, log)) is not None:
            options, listener = started
            _check_end(run(options, listener), options)
    except ExitError as error:
        log.error(str(error))
        _complain(error.debug)
        log.error(f"Firecracker exiting with error. exit_code={error.exit_code}")
        return error.exit_code
    except Panic as panic:
        log.error(f"Firecracker panicked: {panic}")
        _complain(str(panic))
        log.error("Firecracker exiting with error. exit_code=1")
        return 1
    log.info("Firecracker exiting successfully. exit_code=0")
    return 0


class Panic(Exception):
    """A value for which Firecracker panics; here a line and exit code 1."""


def _prepare(
    argv: list[str], logger: Logger, log: Channel
) -> tuple[Options, socket | None] | None:
    """Everything up to the socket; None when all that was asked is answered."""
    parser = Parser(ARGUMENTS)
    try:
        values = parser.parse(argv)
    except ArgumentsError as error:
        raise ExitError(
            f"Arguments parsing error: {error} \\n\\nFor more information try --help.",
            f"ParseArguments({error.debug})",
            _ARGUMENTS_EXIT_CODE,
        ) from None
    if values.has("help"):
        _print(f"Firecracker v{FIRECRACKER_VERSION}\n\n{parser.help()}\n")
    elif values.has("version"):
        _print(f"Firecracker v{FIRECRACKER_VERSION}\n\n")
    elif values.has("snapshot-version"):
        from vmmd.state.versions import CURRENT

        _print(f"v{CURRENT}\n")
    elif (path := values.get("describe-snapshot")) is not None:
        from vmmd.cli.describe import data_format

        _print(f"v{data_format(path)}\n")
    else:
        return _start(values, logger, log)
    return None


def _start(
    values: Values, logger: Logger, log: Channel
) -> tuple[Options, socket | None]:
    """Check everything, then listen."""
    instance_id = values.get("id") or ""
    _check_instance_id(instance_id)
    logger.instance_id = instance_id
    _configure_logger(values, logger)
    log.info(f"Running Firecracker v{FIRECRACKER_VERSION}")
    watch(logger)
    _check_writable_metrics(values.get("metrics-path"))
    _check_readable_filter(values.get("seccomp-filter"))
    config = _file_text(values.get("config-file"), "the configuration")
    metadata = _file_text(values.get("metadata"), "the mmds content")
    _check_numbers(values)
    fd = None
    if not values.has("no-api"):
        path = values.get("api-sock") or ""
        fd = listen(path).detach()
        adapter = logger.channel("main", "firecracker::api_server_adapter")
        adapter.info(f"Listening on API socket ({debug_str(path)}).")
    from vmmd.loop.lean import stand_in

    stand_in()
    listener = None if fd is None else _as_socket(fd)
    return _options(values, logger, config, metadata), listener


def _as_socket(fd: int) -> socket:
    from socket import socket  # 4 ms that a client need not wait for

    return socket(fileno=fd)


def _configure_logger(values: Values, logger: Logger) -> None:
    level = values.get("level")
    try:
        logger.update(
            log_path=values.get("log-path"),
            level=None if level is None else parse_level(level),
            show_level=values.has("show-level") or None,
            show_log_origin=values.has("show-log-origin") or None,
            module=values.get("module"),
        )
    except LevelError as error:
        raise ExitError(
            f"Invalid value for logger level: {error}."
            "Possible values: [Error, Warning, Info, Debug]",
            f"InvalidLogLevel(LevelFilterFromStrError({debug_str(level or '')}))",
            _BAD_CONFIGURATION_EXIT_CODE,
        ) from None
    except LoggerUpdateError as error:
        raise ExitError(
            f"Could not initialize logger: {error}",
            f"LoggerInitialization({error.debug})",
        ) from None


def _check_instance_id(instance_id: str) -> None:
    size = len(instance_id.encode("utf-8", "surrogateescape"))
    if not 1 <= size <= _INSTANCE_ID_MAX_LENGTH:
        bounds = f"{size}, 1, {_INSTANCE_ID_MAX_LENGTH}"
        raise Panic(f"Invalid instance ID: InvalidLen({bounds})")
    for position, char in enumerate(instance_id):
        if not (char == "-" or char.isalnum()):
            raise Panic(
                f"Invalid instance ID: InvalidChar('{_char(char)}', {position})"
            )


def _char(char: str) -> str:
    """A character as Rust's Debug shows it, without the quotes."""
    return {"'": "\\'", '"': '"'}.get(char, debug_str(char)[1:-1])


def _check_writable_metrics(path: str | None) -> None:
    if path is None:
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        os.close(os.open(path, flags, 0o666))
    except OSError as error:
        raise ExitError(
            "Could not initialize metrics: Cannot initialize the metrics system "
            f"due to bad user input: {io_error(error)}",
            f"MetricsInitialization(InitializationFailure({debug_str(io_error(error))}))",
        ) from None


def _check_readable_filter(path: str | None) -> None:
    """A filter is accepted and not installed (yet); it must be there, and compiled."""
    if path is None:
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        text = f"Filter file open error: {io_error(error)}"
        raise _bad_filter(text, f"FileOpen({io_error_debug(error)})") from None
    unread = "Filter deserialization failed: "
    try:
        start = os.read(fd, 1 << 16)
    except OSError as error:
        text = f"{unread}Failed to read input: {io_error(error)}"
        debug = f"Deserialization(InputRead({io_error_debug(error)}))"
        raise _bad_filter(text, debug) from None
    finally:
        os.close(fd)
    if b"\0" not in start:  # text, such as what it was to be compiled from
        text = f"{unread}Bitcode deserialization failed: bitcode error"
        raise _bad_filter(text, 'Deserialization(Bitcode(Error("bitcode error")))')


def _bad_filter(text: str, debug: str) -> ExitError:
    return ExitError(f"Seccomp error: {text}", f"SeccompFilter({debug})")


def _file_text(path: str | None, what: str) -> str | None:
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        reason = io_error_debug(error)
    except UnicodeDecodeError:
        reason = (
            'Error { kind: InvalidData, message: "stream did not contain valid UTF-8" }'
        )
    raise Panic(f"Unable to open or read from {what} file: {reason}")


def _check_numbers(values: Values) -> None:
    """Read every number once, so that a bad one is told before the start."""
    _number(values, "http-api-max-payload-size", "usize")
    _number(values, "mmds-size-limit", "usize")
    if not values.has("no-api"):
        _number(values, "start-time-us", "u64")
        _number(values, "start-time-cpu-us", "u64")
        _number(values, "parent-cpu-time-us", "u64")


def _number(values: Values, name: str, kind: str = "u64") -> int | None:
    """An argument's value as Rust parses an unsigned 64-bit integer."""
    text = values.get(name)
    if text is None:
        return None
    digits = text.removeprefix("+")
    whole = digits.lstrip("0") or "0"
    if not (digits.isascii() and digits.isdigit()):
        fault = "InvalidDigit" if text else "Empty"
    elif len(whole) > 20 or int(whole) > _U64_MAX:
        fault = "PosOverflow"
    else:
        return int(whole)
    raise Panic(
        f"'{name}' parameter expected to be of '{kind}' type.: "
        f"ParseIntError {{ kind: {fault} }}"
    )


def _options(
    values: Values, logger: Logger, config: str | None, metadata: str | None
) -> Options:
    from vmmd.loop.options import Options  # dataclasses are slow to import

    max_payload_size = _number(values, "http-api-max-payload-size") or 0
    mmds_size_limit = _number(values, "mmds-size-limit")
    return Options(
        logger=logger,
        instance_id=logger.instance_id,
        api_sock=values.get("api-sock") or "",
        api_enabled=not values.has("no-api"),
        config_text=config,
        metadata_text=metadata,
        metrics_path=values.get("metrics-path"),
        boot_timer=values.has("boot-timer"),
        enable_pci=values.has("enable-pci"),
        max_payload_size=max_payload_size,
        mmds_size_limit=(
            max_payload_size if mmds_size_limit is None else mmds_size_limit
        ),
        start_time_us=_number(values, "start-time-us"),
        start_time_cpu_us=_number(values, "start-time-cpu-us"),
        parent_cpu_time_us=_number(values, "parent-cpu-time-us"),
    )


def _check_end(code: int, options: Options) -> None:
    """Raise ExitError if the machine did not come to a good end."""
    if code == 0:
        return
    name = _EXIT_CODE_NAMES.get(code, str(code))
    if options.api_enabled:
        raise ExitError(
            f"RunWithApiError error: MicroVM stopped with an error: {name}",
            f"RunWithApi(MicroVMStoppedWithError({name}))",
            code,
        )
    raise ExitError(
        f"RunWithoutApiError error: MicroVMStopped without an error: {name}",
        f"RunWithoutApiError(Shutdown({name}))",
        code,
    )


def _print(text: str) -> None:
    try:
        os.write(1, text.encode())
    except OSError as error:
        raise Panic(f"failed printing to stdout: {io_error(error)}") from error


def _complain(text: str) -> None:
    """Nobody may be able to read it: the exit code says it too."""
    with suppress(OSError):
        os.write(2, f"Error: {text}\n".encode("utf-8", "surrogateescape"))
