"""Taps of the kernel: which are had, which refused, and what is said of them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import struct
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.helpers.network import (
    IFF_MULTI_QUEUE,
    IFF_TAP,
    IFF_TUN,
    delete,
    make_persistent,
    own_network,
    set_up,
    wire,
)
from vmmd.errors import HostError
from vmmd.loop import tap as taps
from vmmd.loop.tap import Tap
from vmmd.resources.nets import TapFault, TapStep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taps need root")
TUNGETVNETHDRSZ = 0x8004_54D7
NOBODY = 65534
FRAME = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + b"x" * 50


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """A network without any tap."""
    with own_network():
        yield


def refused(name: str) -> TapFault:
    """The fault of a tap that cannot be had; nothing is left open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TapFault) as fault:
        Tap.open(name)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    return fault.value


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process as a user who may make no tap."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def interfaces() -> set[str]:
    """All interfaces there are but the loopback."""
    return {name for _, name in socket.if_nameindex()} - {"lo"}


def test_a_tap_is_made_and_goes_with_its_last_descriptor() -> None:
    tap = Tap.open("t0")
    assert tap.name == "t0"
    assert not os.get_blocking(tap.fd)
    assert not os.get_inheritable(tap.fd)
    other = tap.duplicate()
    tap.close()
    assert other.exists
    assert interfaces() == {"t0"}
    other.close()
    assert interfaces() == set()


def test_a_persistent_tap_is_attached_to_and_stays() -> None:
    make_persistent("t0")
    for _ in range(2):
        with closing(Tap.open("t0")) as tap:
            assert tap.exists
    assert interfaces() == {"t0"}


def test_frames_have_a_header_of_twelve_bytes() -> None:
    with closing(Tap.open("t0")) as tap:
        size = fcntl.ioctl(tap.fd, TUNGETVNETHDRSZ, bytes(4))
        assert struct.unpack("i", size) == (12,)
        set_up("t0")
        with wire("t0") as host:
            host.send(FRAME)
            assert os.read(tap.fd, 4096)[12:] == FRAME
            os.write(tap.fd, bytes(12) + FRAME)
            assert host.recv(4096) == FRAME


@pytest.mark.parametrize(("asked", "given"), [("", "tap0"), ("vm%d", "vm0")])
def test_the_kernel_completes_a_name(asked: str, given: str) -> None:
    with closing(Tap.open(asked)) as tap:
        assert tap.name == given
        assert interfaces() == {given}


def test_a_tap_has_one_holder() -> None:
    with closing(Tap.open("t0")):
        fault = refused("t0")
    assert fault.step is TapStep.ATTACH
    assert fault.error is not None
    assert fault.error.errno == errno.EBUSY
    assert str(fault) == (
        "tap 't0': TUNSETIFF: Device or resource busy (EBUSY); another process, or"
        " another interface of this VM, has the tap open: each needs one of its own"
    )


@pytest.mark.parametrize("kind", [IFF_TUN, IFF_TAP | IFF_MULTI_QUEUE])
def test_what_is_no_tap_of_one_queue(kind: int) -> None:
    make_persistent("t0", kind)
    fault = refused("t0")
    assert fault.step is TapStep.ATTACH
    assert re.search(r"TUNSETIFF: Invalid argument \(EINVAL\); .*no tap", str(fault))


@pytest.mark.parametrize("name", ["lo", "has/slash", ".", "has space"])
def test_names_that_no_tap_can_have(name: str) -> None:
    fault = refused(name)
    assert fault.step is TapStep.ATTACH
    assert "(EINVAL)" in str(fault)


@pytest.mark.parametrize("name", ["x" * 16, "\u00e9" * 8, "/dev/tap"])
def test_names_are_bytes_and_at_most_fifteen(name: str) -> None:
    if len(name.encode()) < 16:
        assert refused(name).step is TapStep.ATTACH
        return
    fault = refused(name)
    assert fault.step is TapStep.NAME
    assert fault.error is None
    with closing(Tap.open("x" * 15)) as longest:
        assert longest.name == "x" * 15


@pytest.fixture
def open_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """/dev/net/tun as it is on most hosts: anybody may open it."""
    with TemporaryDirectory() as folder:
        node = f"{folder}/tun"
        os.chmod(folder, 0o755)
        os.mknod(node, stat.S_IFCHR, os.makedev(10, 200))
        os.chmod(node, 0o666)
        monkeypatch.setattr(taps, "NODE", node)
        yield


@pytest.mark.usefixtures("open_node")
def test_a_user_may_open_a_tap_of_its_own_and_make_none() -> None:
    make_persistent("mine", owner=NOBODY)
    make_persistent("theirs", owner=NOBODY + 1)
    with as_nobody():
        with closing(Tap.open("mine")) as tap:
            assert tap.exists
        for name in ("theirs", "new"):
            fault = refused(name)
            assert fault.step is TapStep.ATTACH
            assert re.search(rf"\(EPERM\); .* add dev {name} mode tap user", str(fault))


@pytest.mark.usefixtures("open_node")
def test_a_node_that_the_user_may_not_open() -> None:
    os.chmod(taps.NODE, 0o600)
    with as_nobody():
        fault = refused("t0")
    assert fault.step is TapStep.OPEN
    assert "(EACCES); let this user" in str(fault)


def test_no_driver_for_taps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taps, "NODE", str(tmp_path / "tun"))
    fault = refused("t0")
    assert fault.step is TapStep.OPEN
    assert "(ENOENT); " in str(fault)
    assert "modprobe tun" in str(fault)
    (tmp_path / "tun").write_bytes(b"")
    fault = refused("t0")
    assert fault.step is TapStep.ATTACH
    assert "(ENOTTY)" in str(fault)


def test_a_macvtap_is_opened_by_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the node is another name of /dev/net/tun: it takes the same calls."""
    node = str(tmp_path / "tap7")
    monkeypatch.setattr(taps, "MACVTAP", re.compile(re.escape(str(tmp_path)) + "/tap7"))
    fault = refused(node)
    assert fault.step is TapStep.OPEN
    assert fault.node == node
    os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
    with closing(Tap.open(node)) as tap:
        assert tap.name == node
        assert tap.exists


def test_offloads_are_what_the_reader_takes() -> None:
    with closing(Tap.open("t0")) as tap:
        tap.set_offloads(7)
        tap.set_offloads(0)
        with pytest.raises(HostError, match=r"TUNSETOFFLOAD t0: .*\(EINVAL\)"):
            tap.set_offloads(1 << 30)


def test_a_tap_that_was_deleted() -> None:
    with closing(Tap.open("t0")) as tap:
        delete("t0")
        assert not tap.exists
        with closing(Tap.open("t0")) as anew:
            assert anew.exists
