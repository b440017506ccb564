"""Frozen dataclasses that cost little to define.

The standard decorator writes and compiles eight functions for each class, which
takes 0.3 ms, and looks each field over; there are over a hundred classes to define
before the API can answer. Import ``dataclass`` from here for ``@dataclass(frozen=True, slots=True)``:
the classes are dataclasses (``fields``, ``replace`` and matching work) that share
one set of functions. Defaults must be values; ``__post_init__`` runs; nothing else
is supported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError
from itertools import repeat
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_set = object.__setattr__


@dataclasses.dataclass
class _Sample:
    """Has what ``dataclasses`` looks for in a class."""

    field: int


_PARAMETERS = _Sample.__dict__["__dataclass_params__"]
_FIELD: Any = _Sample.__dataclass_fields__["field"]
_CLASS_VARIABLE = ("ClassVar", "typing.ClassVar")


def _make(cls: type[T]) -> type[T]:
    """The class with its fields as slots and the shared functions."""
    namespace = dict(vars(cls))
    inherited: dict[str, Any] = {}
    for base in cls.__mro__[:0:-1]:
        inherited |= vars(base).get("__dataclass_fields__", {})
    own = _own_fields(namespace)
    fields = inherited | own
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)
    namespace |= _FUNCTIONS
    if hasattr(cls, "__post_init__"):
        namespace["__init__"] = _init_and_check
    namespace["__slots__"] = tuple(name for name in own if name not in inherited)
    namespace["__match_args__"] = tuple(fields)
    namespace["__dataclass_fields__"] = fields
    namespace["__dataclass_params__"] = _PARAMETERS
    metaclass: Any = type(cls)
    made: type[T] = metaclass(cls.__name__, cls.__bases__, namespace)
    return made


def _own_fields(namespace: dict[str, Any]) -> dict[str, Any]:
    """The fields that a class itself annotates; their defaults are taken out."""
    fields = {}
    for name, hint in namespace.get("__annotations__", {}).items():
        if str(hint).startswith(_CLASS_VARIABLE):
            continue
        made: Any = dataclasses.field(default=namespace.pop(name, MISSING))
        made.name, made.type = name, hint
        made._field_type = _FIELD._field_type  # noqa: SLF001 (else it is none)
        fields[name] = made
    return fields


def _init(self: object, *values: object, **named: object) -> None:
    names = self.__match_args__  # type: ignore[attr-defined]  # a dataclass has it
    if len(values) > len(names):
        raise TypeError(f"{type(self).__name__} has {len(names)} fields")
    any(map(_set, repeat(self), names, values))  # none is true: a loop in C
    for name in names[len(values) :]:
        _set(self, name, named.pop(name) if name in named else _default(self, name))
    if named:
        raise TypeError(f"{type(self).__name__} has no {', '.join(named)} to give")


def _init_and_check(self: object, *values: object, **named: object) -> None:
    _init(self, *values, **named)
    self.__post_init__()  # type: ignore[attr-defined]  # it is why we are here


def _default(self: object, name: str) -> object:
    field = self.__dataclass_fields__[name]  # type: ignore[attr-defined]  # as above
    if field.default is MISSING:
        raise TypeError(f"{type(self).__name__} needs {name}")
    return field.default


def _values(self: object) -> tuple[object, ...]:
    names = self.__match_args__  # type: ignore[attr-defined]  # a dataclass has it
    return tuple(getattr(self, name) for name in names)


def _eq(self: object, other: object) -> object:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: object) -> str:
    names = self.__match_args__  # type: ignore[attr-defined]  # a dataclass has it
    pairs = zip(names, _values(self), strict=True)
    shown = ", ".join(f"{name}={value!r}" for name, value in pairs)
    return f"{type(self).__qualname__}({shown})"


def _setattr(_self: object, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_FUNCTIONS: dict[str, Any] = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}


def _dataclass(*, frozen: bool, slots: bool) -> Callable[[type[T]], type[T]]:
    """The decorator; both arguments are true, and are there to be read."""
    if not (frozen and slots):
        raise TypeError("only frozen classes with slots are made here")
    return _make


if TYPE_CHECKING:
    # To a type checker the classes are what the standard decorator makes.
    from dataclasses import dataclass as dataclass
else:
    dataclass = _dataclass
