"""The boot source: files opened in order, command line measured."""

from __future__ import annotations

import errno

import pytest

from tests.helpers.opener import Host
from vmmd.config import BootSourceConfig
from vmmd.resources.boot import check_boot_args, open_boot_source
from vmmd.resources.fault import ResourceFault

GONE = "No such file or directory (os error 2)"
KERNEL = f"Boot source error: The kernel file cannot be opened: {GONE}"
INITRD = (
    "Boot source error: The initrd file cannot be opened due to invalid path or"
    f" invalid permissions. {GONE}"
)
TOO_LONG = (
    "Boot source error: The kernel command line is invalid: Invalid cmdline capacity"
    " provided."
)


def test_files_are_opened_for_reading() -> None:
    host = Host()
    config = BootSourceConfig("vmlinux", "initrd", "console=ttyS0")
    boot = open_boot_source(config, host.open)
    assert boot.config == config
    assert [(file.path, file.writable) for file in host.opened] == [
        ("vmlinux", False),
        ("initrd", False),
    ]
    assert (boot.kernel, boot.initrd) == tuple(host.opened)


def test_without_an_initrd() -> None:
    assert open_boot_source(BootSourceConfig("vmlinux"), Host().open).initrd is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (BootSourceConfig("missing"), KERNEL),
        (BootSourceConfig(""), KERNEL),
        (BootSourceConfig("missing", "missing", "x" * 3000), KERNEL),
        (BootSourceConfig("vmlinux", "missing", "x" * 3000), INITRD),
        (BootSourceConfig("vmlinux", "initrd", "x" * 2048), TOO_LONG),
    ],
)
def test_refusals_hold_no_file(config: BootSourceConfig, text: str) -> None:
    host = Host()
    with pytest.raises(ResourceFault) as caught:
        open_boot_source(config, host.open)
    assert str(caught.value) == text
    assert host.held() == []


def test_what_standard_error_has() -> None:
    host = Host(faults={"vmlinux": errno.EACCES})
    with pytest.raises(ResourceFault) as caught:
        open_boot_source(BootSourceConfig("vmlinux"), host.open)
    assert caught.value.debug == (
        "BootSource(InvalidKernelPath(Os { code: 13, kind: PermissionDenied,"
        ' message: "Permission denied" }))'
    )
    assert caught.value.file_text == str(caught.value)


@pytest.mark.parametrize(
    "fits",
    [
        "",
        "a" * 2047,
        " " * 50 + "a" * 2047 + " " * 50,
        "é" * 1023,
        "a" * 2000 + " -- " + "b" * 43,
        "a" * 2047 + " --   ",
        "a -- b -- c",
    ],
)
def test_arguments_that_fit(fits: str) -> None:
    check_boot_args(fits)


@pytest.mark.parametrize(
    "long", ["a" * 2048, "é" * 1024, "a" * 2000 + " -- " + "b" * 44]
)
def test_arguments_that_do_not_fit(long: str) -> None:
    with pytest.raises(ResourceFault) as caught:
        check_boot_args(long)
    assert str(caught.value) == TOO_LONG
