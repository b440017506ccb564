"""A device's configuration space in its register page, and its generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.virtio import registers as reg
from vmmd.virtio.device import WritableConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmmd.bus import Rule, Window
    from vmmd.virtio.device import VirtioDevice


class ConfigSpace:
    """Shows ``config_space()`` in the window's page.

    ``generation`` grows by one per change and is not reset with the device.
    ``on_rules`` is called when the window's rules have changed.
    """

    def __init__(self, device: VirtioDevice, window: Window) -> None:
        self.generation = 0
        self.on_rules: Callable[[Window], None] = lambda _window: None
        self._device = device
        self._window = window

    def show(self) -> None:
        """Store the configuration and the generation as they are."""
        config = self._device.config_space()
        for at in range(0, len(config), 8):
            word = int.from_bytes(config[at : at + 8], "little")
            self._window.page.store(reg.CONFIG + at, 8, word)
        self._window.page.store(reg.CONFIG_GENERATION, 4, self.generation)

    def change(self) -> None:
        """Show a configuration that has changed, under a new generation.

        Meanwhile the generation is read from the loop, after this has ended: who
        reads it before and after the configuration sees whether that is whole.
        """
        self._set_rules(reg.RULES_UPDATING)
        self.show()
        self.generation = (self.generation + 1) & reg.U32
        self._window.page.store(reg.CONFIG_GENERATION, 4, self.generation)
        self._set_rules(reg.RULES)

    def write(self, at: int, size: int, value: int) -> bool:
        """The driver writes ``size`` bytes at ``at``; False if it may not."""
        device = self._device
        if (
            not isinstance(device, WritableConfig)
            or size not in reg.CONFIG_SIZES
            or at + size > len(self._device.config_space())
        ):
            return False
        mask = (1 << 8 * size) - 1
        device.write_config(at, (value & mask).to_bytes(size, "little"))
        self.show()
        return True

    def _set_rules(self, rules: tuple[Rule, ...]) -> None:
        self._window.rules = rules
        self.on_rules(self._window)
