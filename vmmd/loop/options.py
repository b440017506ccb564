"""What the command line asked for, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd.loop.logger import Logger
    from vmmd.snapshot_params import SnapshotLoadParams


@dataclass(frozen=True, slots=True)
class Options:
    """How to run one microVM. Sizes are bytes; times are microseconds.

    ``config_text`` and ``metadata_text`` are the contents of the files named:
    they are read before the socket exists, as Firecracker does. ``restore``: the
    snapshot to go on from, in place of a configuration.
    ``start_time_us``, ``start_time_cpu_us`` and ``parent_cpu_time_us`` come
    from the jailer, for the start-up metrics.
    """

    logger: Logger
    instance_id: str
    api_sock: str
    api_enabled: bool
    config_text: str | None
    metadata_text: str | None
    metrics_path: str | None
    boot_timer: bool
    enable_pci: bool
    max_payload_size: int
    mmds_size_limit: int
    start_time_us: int | None
    start_time_cpu_us: int | None
    parent_cpu_time_us: int | None
    restore: SnapshotLoadParams | None = None

    @property
    def waits_for_requests(self) -> bool:
        """Whether all that the machine is comes over the API."""
        return self.config_text is None and self.restore is None
