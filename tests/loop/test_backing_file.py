"""What may be a disk, and what the host says of a file that is one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.helpers.disk_guest import (
    opened,
)
from vmmd.config import DriveConfig
from vmmd.errors import ConfigError
from vmmd.loop.disk import device_id, knows_nowait
from vmmd.loop.files import HostFile
from vmmd.resources.drives import open_drive

if TYPE_CHECKING:
    from pathlib import Path


class TestBackingFile:
    PREFIX = (
        "Drive config error: Unable to create the virtio block device: Virtio backend "
        "error: Error manipulating the backing file: "
    )

    def refusal(self, path: Path | str, *, read_only: bool = False) -> str:
        config = DriveConfig(
            "d", None, False, is_read_only=read_only, path_on_host=str(path)
        )
        with pytest.raises(ConfigError) as caught:
            open_drive(config, HostFile.open_disk)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "missing.img"
        assert self.refusal(path) == (
            f"{self.PREFIX}No such file or directory (os error 2) {path}"
        )

    def test_no_path(self) -> None:
        assert self.refusal("") == (
            f"{self.PREFIX}No such file or directory (os error 2) "
        )

    def test_directory(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path) == (
            f"{self.PREFIX}Is a directory (os error 21) {tmp_path}"
        )

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        assert self.refusal(path, read_only=True) == (
            f"{self.PREFIX}Invalid seek (os error 29) {path}"
        )

    def test_size_and_id(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.img"
        path.write_bytes(bytes(700))
        file = opened(path, writable=False)
        info = path.stat()
        assert file.backing.size == 700
        assert (
            file.backing.device_id
            == (f"{info.st_dev}{info.st_rdev}{info.st_ino}".encode()[:20])
        )
        assert not os.get_inheritable(file.backing.fd)
        file.close()
        file.close()

    def test_nowait_is_probed(self) -> None:
        fd = os.memfd_create("m")
        os.write(fd, b"x")
        assert not knows_nowait(fd)
        assert device_id(fd)
        os.close(fd)
