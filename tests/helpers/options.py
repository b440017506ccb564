"""Options of a process that tests do not start."""

from __future__ import annotations

from vmmd.loop.logger import Logger
from vmmd.loop.options import Options


def options(log_path: str = "/dev/null", config_text: str | None = None) -> Options:
    """What `firecracker --id an-id` asks for, its log at ``log_path``."""
    logger = Logger()
    logger.update(log_path=log_path)
    return Options(
        logger=logger,
        instance_id="an-id",
        api_sock="",
        api_enabled=True,
        config_text=config_text,
        metadata_text=None,
        metrics_path=None,
        boot_timer=False,
        enable_pci=False,
        max_payload_size=51200,
        mmds_size_limit=51200,
        start_time_us=None,
        start_time_cpu_us=None,
        parent_cpu_time_us=None,
    )
