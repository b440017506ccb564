"""Configuration that a snapshot brings back: records as the API's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.config import CacheType, DriveConfig, IoEngine, NetworkInterfaceConfig
from vmmd.errors import SnapshotError
from vmmd.resources.limiters import limiter_config

if TYPE_CHECKING:
    from enum import StrEnum
    from typing import TypeVar

    from vmmd.virtio.block import BlockState
    from vmmd.virtio.net import NetState

    E = TypeVar("E", bound=StrEnum)


def drive_config(state: BlockState) -> DriveConfig:
    """The drive that a record stands for; SnapshotError names a bad field."""
    where = f"block {state.drive_id}"
    return DriveConfig(
        state.drive_id,
        state.partuuid,
        state.is_root_device,
        _named(CacheType, f"{where}: cache_type", state.cache_type),
        state.is_read_only,
        state.path_on_host,
        limiter_config(state.limiter),
        _named(IoEngine, f"{where}: io_engine", state.io_engine),
    )


def net_config(state: NetState) -> NetworkInterfaceConfig:
    """The interface that a record stands for."""
    mac = state.guest_mac
    return NetworkInterfaceConfig(
        state.iface_id,
        state.host_dev_name,
        None if mac is None else mac.hex(":"),
        state.mtu,
        limiter_config(state.rx_limiter),
        limiter_config(state.tx_limiter),
    )


def _named(kind: type[E], where: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise SnapshotError(f"{where}: {value!r} is not known") from error
