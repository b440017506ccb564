"""A refused step of configuration, and the files that steps open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from vmmd.errors import ConfigError
from vmmd.frozen import dataclass


class OpenedFile(Protocol):
    """A file of the host that is open; what it is, the opener knows."""

    def close(self) -> None:
        """Let go of the file. Called once, by who owns the handle."""


# (path, writable) -> the open file. Raises OSError of the failed call.
Opener: TypeAlias = Callable[[str, bool], OpenedFile]

# Whose fault -> prefix over the API, prefix from a config file, variant in Debug.
_AREAS = {
    "balloon": ("Balloon config error: ", "Balloon device error: ", "BalloonDevice"),
    "boot": ("Boot source error: ", "Boot source error: ", "BootSource"),
    "drive": ("Drive config error: ", "Block device error: ", "BlockDevice"),
    "entropy": ("Entropy config error: ", "Entropy device error: ", "EntropyConfig"),
    "file": ("", "File operation error: ", "File"),
    "hotplug": (
        "Memory hotplug config error: ",
        "Memory hotplug config error: ",
        "MemoryHotplugConfig",
    ),
    "json": ("", "Invalid JSON: ", "InvalidJson"),
    "logger": ("Logger error: ", "Logger error: ", "Logger"),
    "machine": ("Machine config error: ", "VM config error: ", "MachineConfig"),
    "metrics": ("Metrics error: ", "Metrics error: ", "Metrics"),
    "mmds": ("MMMDS config error: ", "MMDS config error: ", "MmdsConfig"),
    "mmds-data": ("MMDS error: ", "MMDS error: ", "Mmds"),
    "net": ("Network config error: ", "Network device error: ", "NetDevice"),
    "pmem": ("Pmem config error: ", "Pmem device error: ", "PmemConfig"),
    "vsock": ("Vsock config error: ", "Vsock device error: ", "VsockDevice"),
}


@dataclass(frozen=True, slots=True)
class RustError:
    """An error's two faces: ``text`` is ``{}``, ``debug`` is ``{:?}``."""

    text: str
    debug: str


class ResourceFault(ConfigError):
    """A refused step of configuration.

    ``str()`` is the API's fault message. ``file_text`` and ``debug`` are what the
    same fault reads like when the step came from a config file. ``hint``, where
    there is one, says for the log what would help.
    """

    def __init__(self, area: str, error: RustError, hint: str = "") -> None:
        api, file, variant = _AREAS[area]
        super().__init__(api + error.text)
        self.hint = hint
        self.file_text = file + error.text
        self.debug = f"{variant}({error.debug})"
