"""The kernel command line: the user's or the default, and what is appended.

A line is ``boot args`` or ``boot args -- init args``; everything that vmmd
adds goes before the `` -- ``. Limits and texts are those of rust-vmm's
linux-loader, which Firecracker answers with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot.layout import CMDLINE_MAX_SIZE, MMIO_SLOT_SIZE
from vmmd.errors import ConfigError
from vmmd.frozen import dataclass
from vmmd.rust import WHITE_SPACE, debug_str

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmmd.boot.layout import MmioSlot

DEFAULT = (
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux "
    "i8042.nomux i8042.dumbkbd swiotlb=noforce"
)

_SEPARATOR = " -- "


class CmdlineError(ConfigError):
    """Just the fault; who reports it puts in front where the line came from."""


@dataclass(frozen=True, slots=True)
class RootDrive:
    """What the kernel is to mount: ``/dev/vda``, or a partition by its UUID."""

    partuuid: str | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class CmdlineDevice:
    """A virtio-mmio device, and the root drive if it is the one."""

    slot: MmioSlot
    root: RootDrive | None = None


@dataclass(frozen=True, slots=True)
class Cmdline:
    """A command line that fits in :data:`CMDLINE_MAX_SIZE`."""

    boot_args: str
    init_args: str = ""

    @classmethod
    def parse(cls, text: str) -> Cmdline:
        """Split a user's line at its first `` -- `` outside double quotes.

        CmdlineError if it is too long. Other characters are the user's affair.
        """
        boot, init = _split(text)
        line = cls(boot.strip(WHITE_SPACE), init.strip(WHITE_SPACE))
        if line.size > CMDLINE_MAX_SIZE:
            raise CmdlineError("Invalid cmdline capacity provided.")
        return line

    @property
    def size(self) -> int:
        """Bytes in guest memory, the final NUL among them."""
        return len(str(self).encode(errors="surrogatepass")) + 1

    def insert(self, slug: str) -> Cmdline:
        """This line with ``slug`` after its boot args.

        CmdlineError if ``slug`` is not printable ASCII or there is no room.
        """
        slug = slug.strip(WHITE_SPACE)
        if not (slug.isascii() and slug.isprintable()):
            raise CmdlineError("String contains a non-printable ASCII character.")
        boot = f"{self.boot_args} {slug}" if self.boot_args else slug
        line = Cmdline(boot, self.init_args)
        if line.size > CMDLINE_MAX_SIZE:
            raise CmdlineError("Inserting string would make command line too long.")
        return line

    def __str__(self) -> str:
        if not self.init_args:
            return self.boot_args
        return f"{self.boot_args}{_SEPARATOR}{self.init_args}"

    def encode(self) -> bytes:
        """What goes to guest memory. CmdlineError if a NUL would cut it short."""
        raw = str(self).encode(errors="surrogatepass")
        if b"\0" in raw:
            raise CmdlineError(
                "Null terminator detected in the command line structure."
            )
        return raw + b"\0"


def build(boot_args: str | None, devices: Iterable[CmdlineDevice]) -> Cmdline:
    """The line a guest gets: ``boot_args`` or the default, and what is appended.

    ``pci=off``, then per device in attach order ``root=`` with ``ro`` or ``rw``
    if it is the root drive, and ``virtio_mmio.device=``. ConfigError with the
    text that InstanceStart answers.
    """
    try:
        line = Cmdline.parse(DEFAULT if boot_args is None else boot_args)
        line = line.insert("pci=off")
        for device in devices:
            if device.root:
                line = _insert_root(line, device.root)
            line = _insert_device(line, device.slot)
        line.encode()
    except CmdlineError as error:
        fault = ConfigError(f"Invalid kernel command line: {error}")
        fault.debug = f"KernelCmdline({debug_str(str(error))})"
        raise fault from error
    return line


def _split(text: str) -> tuple[str, str]:
    at = text.find(_SEPARATOR)
    while at >= 0:
        if text.count('"', 0, at) % 2 == 0:
            return text[:at], text[at + len(_SEPARATOR) :]
        at = text.find(_SEPARATOR, at + len(_SEPARATOR))
    return text, ""


def _insert_root(line: Cmdline, root: RootDrive) -> Cmdline:
    where = "/dev/vda" if root.partuuid is None else f"PARTUUID={root.partuuid}"
    return line.insert(f"root={where}").insert("ro" if root.read_only else "rw")


def _insert_device(line: Cmdline, slot: MmioSlot) -> Cmdline:
    size_kib = MMIO_SLOT_SIZE // 1024
    try:
        return line.insert(f"virtio_mmio.device={size_kib}K@{slot.base:#x}:{slot.gsi}")
    except CmdlineError as error:
        # "resourc": as Firecracker spells it.
        fault = ConfigError(
            "Could not attach device: MMIO transport error: "
            f"Failed to allocate requested resourc: {error}"
        )
        fault.debug = "AttachDevice(MmioTransport(Cmdline(TooLarge)))"
        raise fault from error
