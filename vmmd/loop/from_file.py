"""A machine that a config file describes: every step of it, then the start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmmd import actions as a
from vmmd.errors import ConfigError, ExitError
from vmmd.http.config_file import parse_config, parse_template, steps
from vmmd.lifecycle import not_built
from vmmd.loop.logger import LoggerUpdateError
from vmmd.resources.fault import ResourceFault, RustError
from vmmd.rust import c_path, debug_str, io_error, io_error_debug

if TYPE_CHECKING:
    from vmmd.loop.supervisor import Supervisor

_PARSE = "Configuration for VMM from one single json failed: "
_START = "Could not Start MicroVM from one single json: "
_CHECKED = (a.PutBalloon, a.PutEntropy, a.PutPmem, a.PutMemoryHotplug)
_STARTED = "Successfully started microvm that was configured from one single json"


async def start_from_file(supervisor: Supervisor, text: str) -> None:
    """Configure and start what ``text``, a config file's contents, says.

    ExitError with the text and exit code of Firecracker for what cannot be.
    """
    with_api = supervisor.options.api_enabled
    metadata = _metadata(supervisor)
    try:
        config = parse_config(text.encode())
        if isinstance(config.cpu_config, str):
            _read_template(config.cpu_config)
        for action in steps(config, metadata):
            _take(supervisor, action)
    except ResourceFault as fault:
        if fault.hint:
            supervisor.log.debug(fault.hint)  # scripts compare what is above
        inner = f"ParseFromJson({fault.debug})"
        raise _exit(with_api, _PARSE + fault.file_text, inner) from fault
    except LoggerUpdateError as fault:
        inner = f"ParseFromJson(Logger({fault.debug}))"
        raise _exit(with_api, f"{_PARSE}Logger error: {fault}", inner) from fault
    except _Refused as fault:
        inner = f"ParseFromJson({debug_str(str(fault))})"
        raise _exit(with_api, f"{_PARSE}{fault}", inner) from fault
    try:
        await supervisor.start()
    except ConfigError as fault:
        inner = f"StartMicroVM({fault.debug or debug_str(str(fault))})"
        raise _exit(with_api, f"{_START}{fault}", inner) from fault
    supervisor.log.info(_STARTED)


def fill_metadata(supervisor: Supervisor) -> None:
    """Fill the store from the file of ``--metadata`` where there is no config file.

    ExitError, as above.
    """
    if (contents := _metadata(supervisor)) is None:
        return
    try:
        supervisor.metadata().fill(contents)
    except ResourceFault as fault:
        reason = fault.file_text.removeprefix("MMDS error: ")
        raise ExitError(
            "RunWithApiError error: Failed to build MicroVM: Populating MMDS from file "
            f"failed: {reason}..",
            f"RunWithApi(BuildMicroVmError(Populate{fault.debug}))",
        ) from fault


def _metadata(supervisor: Supervisor) -> a.PutMmds | None:
    """What the file of ``--metadata`` asks for."""
    if (text := supervisor.options.metadata_text) is None:
        return None
    from vmmd.loop.metadata import contents_of

    return contents_of(text)


def _take(supervisor: Supervisor, action: a.Action) -> None:
    """One step. What is not built yet is checked as far as it can be first."""
    if isinstance(action, a.PutLogger):
        supervisor.update_logger(action.config)
        return
    if isinstance(action, a.PutMetrics):
        supervisor.metrics.open(action.config.metrics_path)
        return
    if isinstance(action, a.PutMmds):
        supervisor.metadata().fill(action)
        return
    refused = not_built(action)
    if refused is None or isinstance(action, _CHECKED):
        supervisor.configure(action)
    if refused is not None:
        raise _Refused(refused)


def _read_template(path: str) -> None:
    """The CPU template that a config file names by its path."""
    try:
        text = Path(c_path(path)).read_bytes()
    except OSError as error:
        fault = RustError(io_error(error), io_error_debug(error))
        raise ResourceFault("file", fault) from error
    template = a.PutCpuConfig(parse_template(text))
    if (refused := not_built(template)) is not None:
        raise _Refused(refused)


class _Refused(ConfigError):
    """Something in the file is not built yet."""


def _exit(with_api: bool, text: str, debug: str) -> ExitError:
    if with_api:
        return ExitError(
            f"RunWithApiError error: Failed to build MicroVM from Json: {text}",
            f"RunWithApi(BuildFromJson({debug}))",
        )
    return ExitError(
        f"RunWithoutApiError error: Failed to build MicroVM from Json: {text}",
        f"RunWithoutApiError(BuildMicroVMFromJson({debug}))",
    )
