"""Tells the service manager how far the process is (sd_notify's protocol)."""

from __future__ import annotations

import _socket
import os


def notify(*assignments: str) -> bool:
    """Send ``NAME=value`` assignments to $NOTIFY_SOCKET; whether they were sent.

    Without that variable nothing is sent. A manager that does not listen must
    not stop a virtual machine, so that is no error either. Never blocks.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    peer = _socket.socket(_socket.AF_UNIX, kind)
    try:
        peer.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    finally:
        peer.close()
    return True


def ready(status: str) -> bool:
    """The socket listens: requests may be sent."""
    return notify("READY=1", f"STATUS={status}")


def stopping(status: str) -> bool:
    """The virtual machine is being taken down."""
    return notify("STOPPING=1", f"STATUS={status}")
