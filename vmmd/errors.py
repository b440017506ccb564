"""Errors that say whose fault they are.

Every error that vmmd raises on purpose is one of these. Anything else that
escapes is a bug: it propagates through the nursery and ends the process with
its traceback.
"""


class VmmdError(Exception):
    """The root. ``str(error)`` is a whole message, fit to be shown.

    ``debug`` is what Firecracker's log and standard error show of the same
    error (Rust's ``{:?}``); empty where clients see only the message.
    """

    debug: str = ""


class ConfigError(VmmdError):
    """The client's: a request, a config file or an argument is wrong.

    ``status`` is the HTTP status that says so.
    """

    status: int = 400


class GuestError(VmmdError):
    """The guest's: a ring, an address or a register value breaks the rules.

    Never leaves a device: the device is marked NEEDS_RESET or the request is
    answered with an error status.
    """


class HostError(VmmdError):
    """The host's: KVM, a file, a tap, memory. Names the call, errno and fix."""


class SnapshotError(VmmdError):
    """A snapshot file's: names the record and field that cannot be read."""


class ExitError(VmmdError):
    """Ends the process: the text is logged, ``debug`` goes to standard error."""

    def __init__(self, text: str, debug: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.debug = debug
        self.exit_code = exit_code
