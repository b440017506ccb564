"""The command line: defaults, what is appended and where, limits and texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.boot.cmdline import (
    Cmdline,
    CmdlineDevice,
    CmdlineError,
    RootDrive,
    build,
)
from vmmd.boot.layout import virtio_slots
from vmmd.errors import ConfigError


def test_the_default_line() -> None:
    assert str(build(None, ())) == (
        "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux"
        " i8042.dumbkbd swiotlb=noforce pci=off"
    )


def test_root_stands_right_before_its_own_device() -> None:
    balloon, disk, data = virtio_slots(3)
    line = build(
        "console=ttyS0",
        [
            CmdlineDevice(balloon),
            CmdlineDevice(disk, RootDrive(None, read_only=True)),
            CmdlineDevice(data),
        ],
    )
    assert line.encode() == (
        b"console=ttyS0 pci=off virtio_mmio.device=4K@0xc0001000:5"
        b" root=/dev/vda ro virtio_mmio.device=4K@0xc0002000:6"
        b" virtio_mmio.device=4K@0xc0003000:7\0"
    )


def test_root_by_partuuid() -> None:
    (slot,) = virtio_slots(1)
    root = RootDrive("0eaa91a0-01", read_only=False)
    line = build("a", [CmdlineDevice(slot, root)])
    assert " root=PARTUUID=0eaa91a0-01 rw virtio_mmio" in str(line)


@pytest.mark.parametrize(
    ("given_line", "expected"),
    [
        ("", "pci=off"),
        ("  ", "pci=off"),
        ("a -- b", "a pci=off -- b"),
        ("a -- b -- c", "a pci=off -- b -- c"),
        (" -- b", "pci=off -- b"),
        ("a -- ", "a pci=off"),
        ('a="x -- y" -- b', 'a="x -- y" pci=off -- b'),
        ('a="x -- y"', 'a="x -- y" pci=off'),
        ("\u3000a\x85", "a pci=off"),
        ("\x1ca", "\x1ca pci=off"),
        ("caf\u00e9\ttab", "caf\u00e9\ttab pci=off"),
    ],
)
def test_appended_before_the_init_args(given_line: str, expected: str) -> None:
    assert str(build(given_line, ())) == expected


def test_limits_count_bytes_and_the_nul() -> None:
    assert Cmdline.parse("a" * 2047).size == 2048
    Cmdline.parse(" " * 5000)
    for line in ("a" * 2048, "\u00e9" * 1024, "a -- " + "b" * 2043):
        with pytest.raises(CmdlineError) as caught:
            Cmdline.parse(line)
        assert str(caught.value) == "Invalid cmdline capacity provided."


def test_no_room_for_what_is_appended() -> None:
    (slot,) = virtio_slots(1)
    device = CmdlineDevice(slot, RootDrive(None, read_only=True))
    room = len(" pci=off root=/dev/vda ro virtio_mmio.device=4K@0xc0001000:5")
    assert build("a" * (2047 - room), [device]).size == 2048
    too_long = "Inserting string would make command line too long."
    for length, text in (
        (
            2048 - room,
            "Could not attach device: MMIO transport error: Failed to allocate"
            f" requested resourc: {too_long}",
        ),
        (2030, f"Invalid kernel command line: {too_long}"),
        (2047, f"Invalid kernel command line: {too_long}"),
    ):
        with pytest.raises(ConfigError) as caught:
            build("a" * length, [device])
        assert str(caught.value) == text


def test_what_cannot_be_said_to_a_kernel() -> None:
    with pytest.raises(ConfigError, match="Null terminator"):
        build("a\0b", ())
    (slot,) = virtio_slots(1)
    with pytest.raises(ConfigError, match="non-printable ASCII"):
        build("a", [CmdlineDevice(slot, RootDrive("\u00e9", read_only=True))])


@given(st.text(), st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_a_built_line_fits_and_keeps_the_init_args(text: str, slugs: list[str]) -> None:
    try:
        line = Cmdline.parse(text)
        init = line.init_args
        for slug in slugs:
            line = line.insert(slug)
        raw = line.encode()
    except CmdlineError:
        return
    assert raw.endswith(b"\0")
    assert raw.count(b"\0") == 1
    assert len(raw) == line.size <= 2048
    assert line.init_args == init
