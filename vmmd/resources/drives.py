"""Drives: their order, defaults, files, and what a PATCH makes of them."""

from __future__ import annotations

from dataclasses import replace

from vmmd.config import DriveConfig, DriveUpdate, IoEngine
from vmmd.frozen import dataclass
from vmmd.rust import debug_str, io_error, io_error_debug

from .fault import OpenedFile, Opener, ResourceFault, RustError
from .limiters import effective_limiter, merge_limiter

_DRIVE_BESIDE_PMEM = RustError(
    "Attempt to add block as a root device while the root device defined as a pmem"
    " device",
    "AddingSecondRootDevice",
)
_SECOND_ROOT_DRIVE = RustError(
    "A root block device already exists!", "RootBlockDeviceAlreadyAdded"
)
_CREATE = "Unable to create the virtio block device: "
_BACKING = "Virtio backend error: Error manipulating the backing file:"
_INVALID_DRIVE = RustError(
    f"{_CREATE}Invalid block config.", "CreateBlockDevice(InvalidBlockConfig)"
)
_NO_VHOST_USER = RustError(
    f"{_CREATE}vhost-user block devices are not built yet in this vmmd.",
    "CreateBlockDevice(VhostUserBackend)",
)


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive with its file open; ``config`` has every default filled in."""

    config: DriveConfig
    file: OpenedFile


def has_root_drive(drives: tuple[Drive, ...]) -> bool:
    """Whether a drive holds the root file system; it is the first then."""
    return bool(drives) and drives[0].config.is_root_device


def insert_drive(
    drives: tuple[Drive, ...], config: DriveConfig, root_pmem: bool, opener: Opener
) -> tuple[Drive, ...]:
    """The drives with one more, or with the one of that id replaced in its place.

    ``root_pmem``: whether a pmem device is the root already. Raises ResourceFault.
    """
    ids = [drive.config.drive_id for drive in drives]
    place = ids.index(config.drive_id) if config.drive_id in ids else None
    if config.is_root_device and root_pmem:
        raise ResourceFault("drive", _DRIVE_BESIDE_PMEM)
    if config.is_root_device and has_root_drive(drives) and place != 0:
        raise ResourceFault("drive", _SECOND_ROOT_DRIVE)
    return _placed(list(drives), place, open_drive(config, opener))


def _placed(drives: list[Drive], place: int | None, drive: Drive) -> tuple[Drive, ...]:
    root = drive.config.is_root_device
    if place is None:
        drives.insert(0 if root else len(drives), drive)
    else:
        drives[place] = drive
        if root:
            drives[0], drives[place] = drives[place], drives[0]
    return tuple(drives)


def open_drive(config: DriveConfig, opener: Opener) -> Drive:
    """Check a drive's fields against each other, fill defaults in, open its file."""
    path = config.path_on_host
    if config.socket is not None:
        raise ResourceFault("drive", _socket_fault(config))
    if path is None:
        raise ResourceFault("drive", _INVALID_DRIVE)
    full = replace(
        config,
        is_read_only=bool(config.is_read_only),
        rate_limiter=effective_limiter(config.rate_limiter),
        io_engine=config.io_engine or IoEngine.SYNC,
    )
    try:
        return Drive(full, opener(path, not full.is_read_only))
    except OSError as error:
        text = f"{_CREATE}{_BACKING} {io_error(error)} {path}"
        inner = f"BackingFile({io_error_debug(error)}, {debug_str(path)})"
        debug = f"CreateBlockDevice(VirtioBackend({inner}))"
        raise ResourceFault("drive", RustError(text, debug)) from error


def _socket_fault(config: DriveConfig) -> RustError:
    plain = (
        config.is_read_only,
        config.path_on_host,
        config.rate_limiter,
        config.io_engine,
    )
    mixed = any(field is not None for field in plain)
    return _INVALID_DRIVE if mixed else _NO_VHOST_USER


def patch_drive(
    drives: tuple[Drive, ...], update: DriveUpdate, opener: Opener
) -> tuple[Drive, ...]:
    """The drives of a started machine after ``PATCH /drives/{id}``.

    A new path gives a Drive with a new file, opened as the old one was; a
    limiter alone keeps the file. Raises ResourceFault.
    """
    for place, drive in enumerate(drives):
        if drive.config.drive_id == update.drive_id:
            patched = _patched(drive, update, opener)
            return (*drives[:place], patched, *drives[place + 1 :])
    raise _patch_fault("Failed perform action on device: Device not found")


def _patched(drive: Drive, update: DriveUpdate, opener: Opener) -> Drive:
    if update.path_on_host is None and update.rate_limiter is None:
        raise _patch_fault("Block: Running method expected different backend.")
    limiter = merge_limiter(drive.config.rate_limiter, update.rate_limiter)
    config = replace(drive.config, rate_limiter=limiter)
    path = update.path_on_host
    if path is None:
        return Drive(config, drive.file)
    try:
        file = opener(path, not config.is_read_only)
    except OSError as error:
        text = f"Block: {_BACKING} {io_error(error)} {path}"
        raise _patch_fault(text) from error
    return Drive(replace(config, path_on_host=path), file)


def _patch_fault(inner: str) -> ResourceFault:
    text = f"Unable to patch the block device: {inner} Please verify the request"
    return ResourceFault("drive", RustError(f"{text} arguments.", "DeviceUpdate"))
