"""Configuration that a snapshot brings back: records as the API's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.config import (
    CacheType,
    DriveConfig,
    IoEngine,
    MmdsConfig,
    MmdsVersion,
    NetworkInterfaceConfig,
)
from vmmd.errors import SnapshotError
from vmmd.mmds.state import MmdsState
from vmmd.resources.limiters import limiter_config

if TYPE_CHECKING:
    from collections.abc import Iterable
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


def mmds_state(config: MmdsConfig | None) -> MmdsState | None:
    """The record of the metadata service; its address is with the interfaces."""
    if config is None:
        return None
    return MmdsState(version=config.version.value, imds_compat=config.imds_compat)


def mmds_config(state: MmdsState | None, nets: Iterable[NetState]) -> MmdsConfig | None:
    """The service that a record and the interfaces stand for: None if none has it.

    Old releases have no record; it was version 1 then. SnapshotError: interfaces
    that do not agree on the address, or a version that is not known.
    """
    served = {net.iface_id: net.mmds_ipv4 for net in nets if net.mmds_ipv4 is not None}
    if not served:
        return None
    if len(set(served.values())) > 1:
        raise SnapshotError("net: mmds_ipv4: the interfaces have several")
    state = state or MmdsState()
    return MmdsConfig(
        _named(MmdsVersion, "mmds: version", state.version),
        tuple(served),
        ".".join(map(str, next(iter(served.values())))),
        state.imds_compat,
    )


def _named(kind: type[E], where: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise SnapshotError(f"{where}: {value!r} is not known") from error
