"""Signals that end the process with a code of their own, and SIGPIPE.

``watch`` serves from the first moment on, while the loop is still being
imported; the loop takes over and tears the machine down in order. Imports
nothing that is slow to import.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # the typing module costs a third of the start-up
if TYPE_CHECKING:
    from vmmd.loop.logger import Logger

EXIT_CODES = {
    int(signal.SIGXFSZ): 151,
    int(signal.SIGXCPU): 154,
    int(signal.SIGHUP): 156,
}
SIGPIPE = int(signal.SIGPIPE)


def watch(logger: Logger) -> None:
    """End the process by EXIT_CODES from now on; log a SIGPIPE and go on."""

    def caught(number: int, _frame: object) -> None:
        if (code := log_signal(logger, number)) is not None:
            os._exit(code)

    for number in (*EXIT_CODES, SIGPIPE):
        signal.signal(number, caught)


def log_signal(logger: Logger, number: int) -> int | None:
    """Log a signal that was sent; the exit code, or None if it ends nothing."""
    log = logger.channel("main", "vmm::signal_handler")
    code = EXIT_CODES.get(number)
    if code is None:
        log.error(f"Received signal {number}, code 0.")
    else:
        log.error(f"Shutting down VM after intercepting signal {number}, code 0.")
    return code
