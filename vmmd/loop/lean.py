"""Imports the daemon without what its libraries need for things it never does.

trio offers TLS, DTLS, name look-ups and processes; attrs, h11 and dataclasses want
signatures for documentation. What these stand on is a quarter of the time until
the first answer, and 5 MiB of each process. In its place is a stand-in that
becomes the real module when somebody wants something of it. What is wanted of a
few while the daemon is imported they answer by themselves, for that time alone or,
where the answer is the real one's, for good.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from types import CoroutineType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

UNUSED = (
    "attr.validators",
    "attrs.validators",
    "fnmatch",
    "hmac",
    "idna",
    "inspect",
    "ipaddress",
    "locale",
    "logging",
    "ntpath",
    "platform",
    "selectors",
    "shutil",
    "ssl",
    "subprocess",
    "textwrap",
    "tokenize",
    "traceback",
    "urllib.parse",
)


class Later(ModuleType):
    """Stands for a module that is not imported yet."""

    def __getattr__(self, name: str) -> object:
        """What the real module has, which is imported for it."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)  # the import system asks, and does without
        if sys.modules.get(self.__name__) is self:
            _make_room(self.__name__)
        found: object = getattr(import_module(self.__name__), name)
        self.__dict__[name] = found  # who holds the stand-in may ask often
        return found


def _make_room(package: str) -> None:
    """Let the real one be imported, and whatever is in it."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, Later) and f"{name}.".startswith(f"{package}."):
            del sys.modules[name]


class _Logger:
    """Stands for the logger of a name, which is made when it has to say something."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> object:
        return getattr(import_module("logging").getLogger(self._name), name)


def stand_in() -> None:
    """Put a stand-in for each module that is not imported."""
    for name in UNUSED:
        sys.modules.setdefault(name, Later(name))
    # As the import system would: it does not, since it finds the module there.
    import_module("urllib").__dict__["parse"] = sys.modules["urllib.parse"]
    for name in _STAYING:
        if isinstance(sys.modules[name], Later):
            sys.modules[name].__dict__.update(_STAYING[name])


def import_lean(name: str) -> ModuleType:
    """Import a module that imports trio, h11 and attrs; this is the module."""
    stand_in()
    with _answers():
        return import_module(name)


@contextmanager
def _answers() -> Iterator[None]:
    """What the stand-ins say while modules are imported."""
    asked = {name: sys.modules[name] for name in _ANSWERS}
    left = {name: it for name, it in asked.items() if isinstance(it, Later)}
    for name, module in left.items():
        module.__dict__.update(_ANSWERS[name])
    if "ctypes" not in sys.modules:
        sys.modules |= _without_libraries()
    try:
        yield
    finally:
        if isinstance(sys.modules.get("ctypes"), Later):
            _make_room("ctypes")
        for name, module in left.items():
            for answer in _ANSWERS[name]:
                module.__dict__.pop(answer, None)


def _without_libraries() -> dict[str, ModuleType]:
    """A ctypes in which there is no library to be found.

    To name its worker threads trio runs ``ldconfig``; they go without a name.
    """
    ctypes, util = Later("ctypes"), Later("ctypes.util")
    ctypes.__dict__.update(util=util, CDLL=_no_library)
    util.__dict__["find_library"] = lambda _name: None
    return {"ctypes": ctypes, "ctypes.util": util}


def _no_library(name: str) -> NoReturn:
    raise OSError(f"{name} is not looked for")


def _is_coroutine(thing: object) -> bool:
    return isinstance(thing, CoroutineType)


def _state(of: CoroutineType[object, object, object]) -> str:
    if of.cr_running:
        return "CORO_RUNNING"
    if of.cr_suspended:
        return "CORO_SUSPENDED"
    return "CORO_CREATED" if of.cr_frame is not None else "CORO_CLOSED"


_STAYING: dict[str, dict[str, object]] = {
    "inspect": {  # trio asks, for each lock taken and each call in a worker thread
        "iscoroutine": _is_coroutine,
        "getcoroutinestate": _state,
        "CORO_CLOSED": "CORO_CLOSED",
    },
    "platform": {  # attrs and uuid ask while they are imported
        "python_implementation": lambda: "CPython",
        "system": lambda: os.uname().sysname,
    },
}
"""Answers that stay: what the real module says."""


def _signature(of: object) -> str:
    """For the documentation of a class: none. Else as of a function of C's."""
    if isinstance(of, type):
        return ""
    raise ValueError("no signature found")


def _instance_of(kind: type) -> Callable[[object, object, object], None]:
    """Refuse, as attrs does, what is no instance of a class."""

    def check(_of: object, _attribute: object, value: object) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"no {kind.__name__}: {value!r}")

    return check


def _quote_from_bytes(text: bytes) -> str:
    """The real one, by the time that a path becomes a URI."""
    quoted: str = sys.modules["urllib.parse"].quote_from_bytes(text)
    return quoted


_ANSWERS: dict[str, dict[str, object]] = {
    "attr.validators": {"instance_of": _instance_of},
    "inspect": {"cleandoc": str, "signature": _signature},  # for documentation
    "logging": {"getLogger": _Logger},
    "textwrap": {"dedent": str},  # likewise
    "urllib.parse": {"quote_from_bytes": _quote_from_bytes},
}
"""Answers for the time of the import."""
