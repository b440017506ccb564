"""What the service counts, by the names of Firecracker's metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Of one interface, or of one service; frames from the guest are ``rx``."""

    rx_accepted: int = 0
    rx_accepted_err: int = 0
    rx_accepted_unusual: int = 0
    rx_bad_eth: int = 0
    rx_invalid_token: int = 0
    rx_no_token: int = 0
    rx_count: int = 0
    tx_bytes: int = 0
    tx_count: int = 0
    tx_errors: int = 0
    tx_frames: int = 0
    connections_created: int = 0
    connections_destroyed: int = 0

    def as_dict(self) -> dict[str, int]:
        """Each counter by its name."""
        return asdict(self)
