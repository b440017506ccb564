"""A state file as a tree of names and plain values: to show, and to compare.

What records keep as the kernel's bytes gets the names of its parts. Works on
entries as they stand in a file, of any version: what is not known is shown raw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmmd.cpu.fpu import XSAVE_SIZE, Xsave
from vmmd.cpu.lapic import LAPIC_SIZE, Lapic
from vmmd.cpu.names import lapic_registers, msr_name, xsave_registers
from vmmd.frozen import dataclass
from vmmd.state.codec import TAG, named
from vmmd.state.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from vmmd.state.codec import Entry
    from vmmd.state.manifest import MemoryManifest
    from vmmd.state.snapshot import Header

    Tree: TypeAlias = Any
    """Maps with names as keys, lists, and int, str, bytes, bool or None."""

_XSAVE_NAMED = 576  # bytes that xsave_registers knows: legacy area and header
_SHORT_BYTES = 32
_DECIMAL_BELOW = 10_000
_MAC_SIZE = 6


@dataclass(frozen=True, slots=True)
class Change:
    """A place where two trees differ; None on the side that has nothing there."""

    path: str
    before: str | None
    after: str | None


def header_view(header: Header) -> Tree:
    """The header but for its manifest."""
    names: tuple[str, ...] = type(header).__match_args__
    shown = {name: getattr(header, name) for name in names if name != "memory"}
    shown["devices"] = ["/".join(device) for device in header.devices]
    return shown


def memory_view(manifest: MemoryManifest) -> Tree:
    """The manifest in figures: what is where, not each page."""
    unverified = int.from_bytes(manifest.unverified, "little").bit_count()
    return {
        "kind": manifest.kind,
        "parent_id": manifest.parent_id,
        "size": manifest.size,
        "regions": [{"address": at, "size": size} for at, size in manifest.regions],
        "data_pages": manifest.data_pages,
        "pages": manifest.size // manifest.page_size,
        "blocks": manifest.block_count,
        "unverified_blocks": unverified,
    }


def record_view(entry: Entry) -> Tree:
    """A record's fields."""
    return _map(entry.kind, entry.fields)


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Tree]]:
    """``(path, value)`` of each value that has none inside it; ``a.b[0]``."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, list) and tree:
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, tree


def text(value: Tree, *, decimal: bool = False) -> str:
    """A value on one line; large numbers in hexadecimal, unless ``decimal``."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case int():
            small = decimal or abs(value) < _DECIMAL_BELOW
            return str(value) if small else f"{value:#x}"
        case bytes():
            return _bytes_text(value)
        case str():
            return f'"{value}"'
        case _:
            return "empty"


def changes(before: Tree, after: Tree, *, decimal: bool = False) -> Iterator[Change]:
    """Each path whose value differs, in the order of ``before``."""
    old, new = dict(leaves(before)), dict(leaves(after))
    for path in [*old, *(path for path in new if path not in old)]:
        # Not ==, to which 1 and True are the same.
        if path not in new or path not in old or _differ(old[path], new[path]):
            shown = [
                text(values[path], decimal=decimal) if path in values else None
                for values in (old, new)
            ]
            yield Change(path, *shown)


def memory_changes(before: MemoryManifest, after: MemoryManifest) -> Iterator[Change]:
    """How two manifests differ: figures, and which blocks."""
    yield from changes(memory_view(before), memory_view(after), decimal=True)
    if before.size == after.size and before.kind == after.kind:
        pairs = zip(before.blocks, after.blocks, strict=True)
        other = [old.index for old, new in pairs if old != new]
        if other:
            count = f"{len(other)} of {before.block_count} differ"
            yield Change("blocks", None, f"{count}: {_ranges(other)}")


def jsonable(tree: Tree) -> Tree:
    """The same with bytes as hexadecimal text."""
    match tree:
        case dict():
            return {name: jsonable(value) for name, value in tree.items()}
        case list() | tuple():
            return [jsonable(value) for value in tree]
        case bytes():
            return tree.hex()
        case _:
            return tree


def record_name(entry: Entry) -> str:
    """How a record is named: its kind and its id."""
    return named(entry.kind, entry.id)


def _differ(one: Tree, other: Tree) -> bool:
    return type(one) is not type(other) or bool(one != other)


def _ranges(numbers: list[int]) -> str:
    """``1-3, 7`` of ascending numbers."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in found)


def _bytes_text(data: bytes) -> str:
    if len(data) <= _SHORT_BYTES:
        return data.hex(" ") or "no bytes"
    return f"{len(data)} bytes, crc32c {crc32c(data):08x}"


# Names for what is kept as bytes and numbers.


def _map(kind: str, fields: Mapping[str, Tree]) -> dict[str, Tree]:
    shown: dict[str, Tree] = {}
    for name, value in fields.items():
        if name != TAG:
            known = _NAMED.get((kind, name))
            made = None if known is None else known(value)
            shown |= {name: _plain(value)} if made is None else made
    return shown


def _plain(value: Tree) -> Tree:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return _map(str(value.get(TAG, "")).partition("/")[0], value)
    return value


def _lapic(value: Tree) -> dict[str, Tree] | None:
    if not isinstance(value, bytes) or len(value) != LAPIC_SIZE:
        return None
    return {**lapic_registers(Lapic(regs=value))}


def _xsave(value: Tree) -> dict[str, Tree] | None:
    if not isinstance(value, bytes) or len(value) < XSAVE_SIZE:
        return None
    return {**xsave_registers(Xsave(region=value)), "extended": value[_XSAVE_NAMED:]}


def _msrs(value: Tree) -> dict[str, Tree] | None:
    if not isinstance(value, tuple) or not all(map(_is_pair, value)):
        return None
    return {"msrs": {msr_name(index): data for index, data in value}}


def _xcrs(value: Tree) -> dict[str, Tree] | None:
    if not isinstance(value, tuple) or not all(map(_is_pair, value)):
        return None
    return {f"xcr{index}": data for index, data in value}


def _is_pair(value: Tree) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == len(("index", "data"))
        and all(isinstance(number, int) for number in value)
    )


def _cpuid(value: Tree) -> dict[str, Tree] | None:
    """By leaf and subleaf, so that two tables are compared leaf by leaf."""
    if not isinstance(value, tuple) or not all(isinstance(v, dict) for v in value):
        return None
    leaves_: dict[str, Tree] = {}
    for entry in value:
        shown = _plain(entry)
        number, index = shown.pop("function", None), shown.pop("index", None)
        if not isinstance(number, int) or not isinstance(index, int):
            return None
        leaves_[f"{number:#x}/{index}"] = shown
    return {"cpuid": leaves_}


def _mac(value: Tree) -> dict[str, Tree] | None:
    if not isinstance(value, bytes) or len(value) != _MAC_SIZE:
        return None
    return {"guest_mac": value.hex(":")}


_NAMED: dict[tuple[str, str], Callable[[Tree], dict[str, Tree] | None]] = {
    ("kvm_lapic_state", "regs"): _lapic,
    ("kvm_xsave", "region"): _xsave,
    ("kvm_xcrs", "xcrs"): _xcrs,
    ("vcpu", "msrs"): _msrs,
    ("vcpu", "cpuid"): _cpuid,
    ("net", "guest_mac"): _mac,
}
