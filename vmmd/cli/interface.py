"""``--net`` of ``vmmd run``: no interface, one on a tap that is there, or one with NAT."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

OWN_TAP = ""
"""``--net`` without a name."""

IFACE_ID = "eth0"


@dataclass(frozen=True, slots=True)
class Interface:
    """The guest's interface as the config file has it (None: it has none), and
    what its command line says of it."""

    config: dict[str, str] | None = None
    cmdline: str = ""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let ``--net`` and ``--net TAP`` be given."""
    parser.add_argument(
        "--net",
        nargs="?",
        const=OWN_TAP,
        metavar="TAP",
        help="a network interface on this tap; without a name on one of its own, with"
        " NAT, for as long as the guest runs (needs root); the guest's init is told"
        " its address by vmmd.ip=ADDRESS/PREFIX,GATEWAY; with --restore the guest's"
        " network of before",
    )


@contextmanager
def interface(net: str | None, known: str | None = None) -> Iterator[Interface]:
    """What ``--net`` asks for, for the length of the block.

    ``known``: the command line that told a guest its network, if it was started
    before. Raises HostError, which says what is missing, before the block.
    """
    if net is None:
        yield Interface()
    elif net != OWN_TAP:
        yield Interface({"iface_id": IFACE_ID, "host_dev_name": net})
    else:
        with _nat(known) as made:
            yield made


@contextmanager
def _nat(known: str | None) -> Iterator[Interface]:
    from vmmd.cli.nat import network_of, open_nat

    made = open_nat(None if known is None else network_of(known))
    try:
        nat = made.nat
        text = f"the guest is {nat.address}, its gateway {nat.gateway}, on {nat.tap}"
        print(f"vmmd run: {text}", file=sys.stderr, flush=True)
        config = {"iface_id": IFACE_ID, "host_dev_name": nat.tap}
        yield Interface(config | {"guest_mac": nat.guest_mac}, nat.cmdline)
    finally:
        made.close()
