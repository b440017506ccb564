"""A vCPU's view of a window: serves accesses by its rules, as vmmd/loop/vcpu.c does.

Posted writes wait in a queue until :meth:`GuestPort.drain` or a synchronous
access, which is answered only after all that was posted before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vmmd.bus import Access, RegisterPage, Rule

if TYPE_CHECKING:
    from vmmd.bus import BusDevice


class Chip(Protocol):
    """A device with its page and rules."""

    page: RegisterPage

    @property
    def rules(self) -> tuple[Rule, ...]: ...
    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...


def rule_of(
    rules: tuple[Rule, ...], offset: int, size: int, write: bool
) -> Rule | None:
    for rule in rules:
        if rule.size == size and rule.write == write and rule.offset == offset:
            return rule
    return None


class GuestPort:
    """Byte accesses of a guest to ``chip``; counts what was synchronous."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.rules = chip.rules
        self.posted: list[tuple[int, int]] = []
        self.synchronous = 0

    def inb(self, offset: int) -> int:
        if rule_of(self.rules, offset, 1, write=False):
            return self.chip.page.load(offset, 1)
        self.drain()
        self.synchronous += 1
        return self.chip.read(offset, 1)

    def outb(self, offset: int, value: int) -> None:
        rule = rule_of(self.rules, offset, 1, write=True)
        if rule is None:
            self.drain()
            self.synchronous += 1
            self.chip.write(offset, 1, value)
            self.rules = self.chip.rules
            return
        if rule.access in (Access.STORED, Access.STORED_POSTED):
            self.chip.page.store(offset, 1, value & rule.mask)
        if rule.access in (Access.POSTED, Access.STORED_POSTED):
            self.posted.append((offset, value))

    def drain(self) -> None:
        posted, self.posted = self.posted, []
        for offset, value in posted:
            self.chip.write(offset, 1, value)


def shadows_differ(chip: Chip, again: BusDevice) -> list[int]:
    """Offsets whose page is not what ``again``, the same chip, would answer."""
    return [
        rule.offset
        for rule in chip.rules
        if rule.access is Access.SHADOW
        and chip.page.load(rule.offset, 1) != again.read(rule.offset, 1)
    ]
