"""Errors that say whose fault they are.

Every error that vmmd raises on purpose is one of these. Anything else that
escapes is a bug: it propagates through the nursery and ends the process with
its traceback.
"""


class VmmdError(Exception):
    """The root. ``str(error)`` is a whole message, fit to be shown."""


class ConfigError(VmmdError):
    """The client's: a request, a config file or an argument is wrong (400)."""


class GuestError(VmmdError):
    """The guest's: a ring, an address or a register value breaks the rules.

    Never leaves a device: the device is marked NEEDS_RESET or the request is
    answered with an error status.
    """


class HostError(VmmdError):
    """The host's: KVM, a file, a tap, memory. Names the call, errno and fix."""


class SnapshotError(VmmdError):
    """A snapshot file's: names the record and field that cannot be read."""
