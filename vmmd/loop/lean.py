"""Imports trio without what it needs for things that a monitor never does.

trio offers TLS, DTLS, name look-ups and processes, and imports what these stand
on: a fifth of the time until the first answer, and 3 MiB of each process. In its
place is a stand-in that becomes the real module when somebody wants something
of it. To name its worker threads trio runs ``ldconfig``; they go without a name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

UNUSED = (
    "hmac",
    "idna",
    "ipaddress",
    "locale",
    "shutil",
    "ssl",
    "subprocess",
    "traceback",
)
_NAMING = ("ctypes", "ctypes.util")


class Later(ModuleType):
    """Stands for a module that is not imported yet."""

    def __getattr__(self, name: str) -> object:
        """What the real module has, which is imported for it."""
        if name.startswith("__"):  # the import system asks, and does without
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def import_trio() -> None:
    """Import trio, unless it is there already."""
    if "trio" in sys.modules:
        return
    for name in UNUSED:
        sys.modules.setdefault(name, Later(name))
    absent = [name for name in _NAMING if name not in sys.modules]
    if len(absent) == len(_NAMING):
        sys.modules |= _without_names()
    import_module("trio")
    for name in absent:
        sys.modules.pop(name, None)


def _without_names() -> dict[str, ModuleType]:
    """A ctypes in which there is no library to be found."""
    ctypes, util = map(ModuleType, _NAMING)
    ctypes.__dict__["util"] = util
    util.__dict__["find_library"] = lambda _name: None
    return {"ctypes": ctypes, "ctypes.util": util}
