"""The arguments of the ``firecracker`` command, with Firecracker's help texts."""

from __future__ import annotations

from vmmd.cli.arguments import Argument
from vmmd.loop.logger import DEFAULT_INSTANCE_ID

ARGUMENTS = [
    Argument(
        "api-sock",
        "Path to unix domain socket used by the API.",
        takes_value=True,
        default="/run/firecracker.socket",
    ),
    Argument(
        "id",
        "MicroVM unique identifier.",
        takes_value=True,
        default=DEFAULT_INSTANCE_ID,
    ),
    Argument(
        "seccomp-filter",
        "Optional parameter which allows specifying the path to a custom seccomp "
        "filter. For advanced users.",
        takes_value=True,
        forbids="no-seccomp",
    ),
    Argument(
        "no-seccomp",
        "Optional parameter which allows starting and using a microVM without "
        "seccomp filtering. Not recommended.",
        forbids="seccomp-filter",
    ),
    Argument(
        "start-time-us",
        "Process start time (wall clock, microseconds). This parameter is optional.",
        takes_value=True,
    ),
    Argument(
        "start-time-cpu-us",
        "Process start CPU time (wall clock, microseconds). This parameter is "
        "optional.",
        takes_value=True,
    ),
    Argument(
        "parent-cpu-time-us",
        "Parent process CPU time (wall clock, microseconds). This parameter is "
        "optional.",
        takes_value=True,
    ),
    Argument(
        "config-file",
        "Path to a file that contains the microVM configuration in JSON format.",
        takes_value=True,
    ),
    Argument(
        "metadata",
        "Path to a file that contains metadata in JSON format to add to the mmds.",
        takes_value=True,
    ),
    Argument(
        "no-api",
        "Optional parameter which allows starting and using a microVM without an "
        "active API socket.",
        requires="config-file",
    ),
    Argument(
        "log-path",
        "Path to a fifo or a file used for configuring the logger on startup.",
        takes_value=True,
    ),
    Argument("level", "Set the logger level.", takes_value=True),
    Argument("module", "Set the logger module filter.", takes_value=True),
    Argument("show-level", "Whether or not to output the level in the logs."),
    Argument(
        "show-log-origin",
        "Whether or not to include the file path and line number of the log's origin.",
    ),
    Argument(
        "metrics-path",
        "Path to a fifo or a file used for configuring the metrics on startup.",
        takes_value=True,
    ),
    Argument(
        "boot-timer",
        "Whether or not to load boot timer device for logging elapsed time since "
        "InstanceStart command.",
    ),
    Argument("version", "Print the binary version number."),
    Argument("snapshot-version", "Print the supported data format version."),
    Argument(
        "describe-snapshot",
        "Print the data format version of the provided snapshot state file.",
        takes_value=True,
    ),
    Argument(
        "http-api-max-payload-size",
        "Http API request payload max size, in bytes.",
        takes_value=True,
        default="51200",
    ),
    Argument("mmds-size-limit", "Mmds data store limit, in bytes.", takes_value=True),
    Argument("enable-pci", "Enables PCIe support."),
]
