"""A host's files, as an Opener gives them, without a host."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field


@dataclass(eq=False)
class Held:
    """A file that is open."""

    path: str
    writable: bool
    closed: int = 0

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@dataclass
class Host:
    """Opens ``files``; a name in ``faults`` gives that errno, others ENOENT."""

    files: tuple[str, ...] = ("vmlinux", "initrd", "disk.img", "two.img")
    faults: dict[str, int] = field(default_factory=dict)
    opened: list[Held] = field(default_factory=list)

    def open(self, path: str, writable: bool) -> Held:
        """An Opener."""
        number = self.faults.get(path, 0 if path in self.files else errno.ENOENT)
        if number:
            raise OSError(number, os.strerror(number), path)
        self.opened.append(Held(path, writable))
        return self.opened[-1]

    def held(self) -> list[str]:
        """The paths that are open and not closed."""
        return [file.path for file in self.opened if not file.closed]
