"""Bodies to values, with serde_json's verdict on what is wrong.

Two readers, one set of tables. The quick one is Python's json and accepts only
what it is certain of; whatever it does not like is read again by the exact one,
which decides: it may still accept, else it names the fault.
"""

from __future__ import annotations

import json
from typing import NoReturn

from .numbers import show_float
from .scanner import SerdeFault
from .shapes import Mismatch, Shape

__all__ = ["SerdeFault", "dump", "load", "load_quick"]


def load(shape: Shape, body: bytes) -> object:
    """The value of a document of a shape. Raises SerdeFault."""
    try:
        return load_quick(shape, body)
    except (ValueError, RecursionError):
        from .reader import read  # not before a body needs it

        return read(shape, body)


def load_quick(shape: Shape, body: bytes) -> object:
    """The value, or ValueError or RecursionError, which say nothing of why.

    Floats (their rounding), ``-0`` and ``\\u`` (surrogates) are left to the exact
    reader.
    """
    if b"\\u" in body:
        raise Mismatch
    tree = json.loads(
        body.decode(),
        object_pairs_hook=tuple,
        parse_float=_refuse,
        parse_int=_int,
        parse_constant=_refuse,
    )
    return shape.match(tree)


def _refuse(_: str) -> NoReturn:
    raise Mismatch


def _int(text: str) -> int:
    if text == "-0":
        raise Mismatch
    return int(text)


def dump(value: object) -> str:
    """A value as compact JSON, floats and escapes as serde_json writes them."""
    match value:
        case bool() | None:
            return json.dumps(value)
        case int():
            return str(int(value))
        case float():
            return show_float(value)
        case str():
            # serde_json escapes DEL no more than Python does, nor what is not ASCII.
            return json.dumps(str(value), ensure_ascii=False)
        case dict():
            pairs = (f"{dump(str(key))}:{dump(item)}" for key, item in value.items())
            return "{" + ",".join(pairs) + "}"
        case list() | tuple():
            return "[" + ",".join(dump(item) for item in value) + "]"
        case _:
            raise TypeError(f"no JSON for a {type(value).__name__}")
