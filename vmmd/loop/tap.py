"""Taps: the host's end of a guest's network interface.

Opened or made when they are named, as a file would be, so that a wrong name is
refused at once. A persistent tap is attached to, any other is made and goes with
its last descriptor. Frames carry the virtio header (12 bytes) in front.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct

from vmmd.loop.ioctl import OwnedFd, host_error
from vmmd.resources.nets import TapFault, TapStep

NODE = "/dev/net/tun"
MACVTAP = re.compile(r"/dev/tap[0-9]+")
"""The node of a macvtap, which stands for its interface's number."""

VNET_HEADER_BYTES = 12

# <linux/if_tun.h>
TUNSETIFF = 0x4004_54CA
TUNSETOFFLOAD = 0x4004_54D0
TUNGETIFF = 0x8004_54D2
TUNSETVNETHDRSZ = 0x4004_54D8
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000

_IFREQ = struct.Struct("16sH22x")
_NAME_BYTES = 16

_HINTS = {
    (TapStep.OPEN, errno.ENOENT): "no such device here: load the module (`modprobe"
    " tun`), or give the jail its /dev/net/tun; a macvtap's number is its ifindex",
    (TapStep.OPEN, errno.ENODEV): "the kernel has no driver for it: `modprobe tun`",
    (TapStep.OPEN, errno.ENXIO): "the kernel has no such interface any more",
    (TapStep.OPEN, errno.EACCES): "let this user read and write it (0666 is usual)",
    (TapStep.OPEN, errno.EPERM): "a device cgroup forbids it: allow `c 10:200 rwm`",
    (TapStep.OPEN, errno.EBUSY): "another process has it open",
    (TapStep.ATTACH, errno.EPERM): "the tap is another user's, or there is none and"
    " making one needs CAP_NET_ADMIN: `ip tuntap add dev {} mode tap user USER`",
    (TapStep.ATTACH, errno.EBUSY): "another process, or another interface of this VM,"
    " has the tap open: each needs one of its own",
    (TapStep.ATTACH, errno.EINVAL): "it is an interface but no tap, a tap of several"
    " queues, or no name that an interface can have: look at `ip -d link show`;"
    " a macvtap is opened as /dev/tapN, N being its ifindex",
}


class Tap(OwnedFd):
    """Owns one descriptor of a tap. ``name`` is the interface's name, for a
    macvtap the path of its node: what opens it again."""

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(fd)
        self.name = name

    @classmethod
    def open(cls, name: str) -> Tap:
        """Attach to the tap ``name`` or make it; frames have a 12-byte header.

        An empty name, or one with ``%d``, is completed by the kernel.
        Raises TapFault, and then holds nothing.
        """
        macvtap = MACVTAP.fullmatch(name) is not None
        node = name if macvtap else NODE
        try:
            tap = cls(name, os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            raise _fault(TapStep.OPEN, node, name, error) from error
        try:
            given = tap._attach("" if macvtap else name)
        except TapFault:
            tap.close()
            raise
        tap.name = name if macvtap else given
        return tap

    def _attach(self, name: str) -> str:
        """Make the descriptor that of a tap; the name the kernel has given it."""
        raw = name.encode(errors="surrogateescape")
        if len(raw) >= _NAME_BYTES:
            raise _fault(TapStep.NAME, NODE, name, None)
        request = bytearray(_IFREQ.pack(raw, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        step = TapStep.ATTACH
        try:
            fcntl.ioctl(self.fd, TUNSETIFF, request)
            step = TapStep.HEADER
            size = struct.pack("i", VNET_HEADER_BYTES)
            fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, size)
        except OSError as error:
            raise _fault(step, self.name, name, error) from error
        given, _, _ = request[:_NAME_BYTES].partition(b"\0")
        return given.decode(errors="replace")

    @property
    def exists(self) -> bool:
        """Whether the host still has the interface."""
        try:
            fcntl.ioctl(self.fd, TUNGETIFF, bytearray(_IFREQ.size))
        except OSError:
            return False
        return True

    def set_offloads(self, offloads: int) -> None:
        """Say what the reader of this tap can take (``TUN_F_*``). HostError."""
        try:
            fcntl.ioctl(self.fd, TUNSETOFFLOAD, offloads)
        except OSError as error:
            raise host_error(f"TUNSETOFFLOAD {self.name}", error) from error

    def duplicate(self) -> Tap:
        """The same tap under another descriptor, with its own life. HostError."""
        try:
            return Tap(self.name, os.dup(self.fd))
        except OSError as error:
            raise host_error("dup", error) from error


def _fault(step: TapStep, node: str, name: str, error: OSError | None) -> TapFault:
    """The fault, with errno's name and the way out for the log."""
    if error is None:
        limit = _NAME_BYTES - 1
        text = f"tap {name!r}: an interface's name has at most {limit} bytes"
        return TapFault(text, step, None, node)
    number = error.errno or 0
    what = (
        f"{name!r}: {step.value} of {node}"
        if step is TapStep.OPEN
        else (f"{name!r}: {step.value}")
    )
    text = f"tap {what}: {os.strerror(number)} ({errno.errorcode.get(number, number)})"
    hint = _HINTS.get((step, number))
    return TapFault(f"{text}; {hint.format(name)}" if hint else text, step, error, node)
