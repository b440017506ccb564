"""How long requests of one kind took, as Firecracker's metrics give it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.frozen import dataclass

if TYPE_CHECKING:
    from vmmd._native import CData


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Shortest, longest and all together, in microseconds."""

    min_us: int
    max_us: int
    sum_us: int


def aggregate(latency: CData) -> Aggregate:
    """Of a ``struct pace_latency``, which is in nanoseconds."""
    return Aggregate(
        latency.min_ns // 1000, latency.max_ns // 1000, latency.sum_ns // 1000
    )
