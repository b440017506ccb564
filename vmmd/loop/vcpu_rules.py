"""A window's rules as the table that ``vcpu.c`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd._native import ffi, lib
from vmmd.bus import PAGE_SIZE, Access

if TYPE_CHECKING:
    from vmmd._native import CData
    from vmmd.bus import Rule

_SIZES = (1, 2, 4, 8)


def native_rules(rules: tuple[Rule, ...]) -> CData:
    """``rules`` for C. ValueError for one that cannot be served from a page."""
    if len(rules) > lib.VCPU_MAX_RULES:
        raise ValueError(f"more than {lib.VCPU_MAX_RULES} rules")
    native = ffi.new("struct vcpu_rules *")
    native.count = len(rules)
    for i, rule in enumerate(rules):
        end = rule.offset + (rule.length or rule.size)
        if rule.size not in _SIZES or end > PAGE_SIZE:
            raise ValueError(f"{rule}: not in the page")
        if rule.access is not Access.SYNC and rule.write is (
            rule.access is Access.SHADOW
        ):
            raise ValueError(f"{rule}: that access is not for this direction")
        if rule.target % 4 or rule.target >= PAGE_SIZE:
            raise ValueError(f"{rule}: the target is no word of the page")
        entry = native.rule[i]
        entry.offset, entry.end, entry.target = rule.offset, end, rule.target
        entry.size, entry.write = rule.size, rule.write
        entry.access, entry.mask = int(rule.access), rule.mask
    return native
