"""The boot source: kernel and initrd opened, command line measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.frozen import dataclass
from vmmd.rust import debug_str, io_error, io_error_debug

from .fault import OpenedFile, Opener, ResourceFault, RustError

if TYPE_CHECKING:
    from vmmd.config import BootSourceConfig

CMDLINE_MAX_SIZE = 2048
INIT_ARGS_SEPARATOR = " -- "
_KERNEL = "The kernel file cannot be opened: "
_INITRD = (
    "The initrd file cannot be opened due to invalid path or invalid permissions. "
)


@dataclass(frozen=True, slots=True)
class BootSource:
    """A boot source with its files open; none are after a load."""

    config: BootSourceConfig
    kernel: OpenedFile | None
    initrd: OpenedFile | None


def open_boot_source(config: BootSourceConfig, opener: Opener) -> BootSource:
    """Open kernel and initrd and check the command line, in this order.

    Raises ResourceFault, and then holds no file.
    """
    kernel = _open(config.kernel_image_path, opener, _KERNEL, "InvalidKernelPath")
    initrd = None
    try:
        if config.initrd_path is not None:
            initrd = _open(config.initrd_path, opener, _INITRD, "InvalidInitrdPath")
        check_boot_args(config.boot_args or "")
    except ResourceFault:
        for file in (kernel, initrd):
            if file is not None:
                file.close()
        raise
    return BootSource(config, kernel, initrd)


def _open(path: str, opener: Opener, text: str, variant: str) -> OpenedFile:
    try:
        return opener(path, False)
    except OSError as error:
        debug = f"{variant}({io_error_debug(error)})"
        fault = RustError(text + io_error(error), debug)
        raise ResourceFault("boot", fault) from error


def check_boot_args(boot_args: str) -> None:
    """Raise ResourceFault unless the arguments fit the kernel's command line.

    Counted as the loader will write them: both halves trimmed, the separator
    between them only where there are arguments for init, and a NUL.
    """
    boot, _, init = boot_args.partition(INIT_ARGS_SEPARATOR)
    size = len(boot.strip().encode()) + 1
    if init.strip():
        size += len(INIT_ARGS_SEPARATOR) + len(init.strip().encode())
    if size > CMDLINE_MAX_SIZE:
        reason = "Invalid cmdline capacity provided."
        text = f"The kernel command line is invalid: {reason}"
        debug = f"InvalidKernelCommandLine({debug_str(reason)})"
        raise ResourceFault("boot", RustError(text, debug))
