"""The tree of the metrics, and what a flush shows of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from vmmd.metrics import BLOCK, GROUPS, NET, Tree, since, tree
from vmmd.mmds.counters import Counters
from vmmd.virtio.aggregate import Aggregate
from vmmd.virtio.block import BlockStatistics
from vmmd.virtio.net import NetStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator

# Interfaces of Firecracker's have such a count; ours never change their address.
NOT_OURS = {"mac_address_updates"}


@dataclass
class Disk:
    """Counters of a drive, of which only some are looked at here."""

    read_bytes: int
    read_agg: Aggregate


def leaves(shown: Tree, path: str = "") -> Iterator[tuple[str, int]]:
    for key, value in shown.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def test_without_anything_all_keys_are_there_and_zero() -> None:
    shown = dict(leaves(tree(7, {})))
    assert shown.pop("utc_timestamp_ms") == 7
    assert len(shown) == 239
    assert set(shown.values()) == {0}
    assert [*tree(7, {})] == ["utc_timestamp_ms", *GROUPS]


def test_the_counters_have_the_names_that_are_shown() -> None:
    assert {f.name for f in fields(BlockStatistics)} >= set(BLOCK.split())
    assert {f.name for f in fields(NetStatistics)} >= set(NET.split()) - NOT_OURS
    assert {f.name for f in fields(Counters)} == set(GROUPS["mmds"].split())


def test_devices_stand_before_the_sum_of_their_kind() -> None:
    one, two = Disk(5, Aggregate(1, 4, 9)), Disk(7, Aggregate(2, 3, 30))
    shown = tree(0, {}, [("block", "a", one), ("block", "b", two)])
    assert [key for key in shown if key.startswith("block")] == [
        *("block_a", "block_b", "block")
    ]
    found = dict(leaves(shown))
    assert found["block_b.read_bytes"] == 7
    assert found["block_a.read_agg.min_us"] == 1
    assert found["block.read_bytes"] == 12
    assert found["block.read_agg.sum_us"] == 39
    assert found["block.read_agg.min_us"] == found["block.read_agg.max_us"] == 0


def test_sources_are_mappings_or_objects() -> None:
    shown = tree(0, {"logger": {"missed_log_count": 3}, "mmds": Counters(rx_count=2)})
    found = dict(leaves(shown))
    assert (found["logger.missed_log_count"], found["mmds.rx_count"]) == (3, 2)


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=9))
def test_what_is_shown_adds_up_to_what_was_counted(totals: list[int]) -> None:
    totals.sort()
    before: Tree = {}
    seen = 0
    for total in totals:
        now = tree(total, {"uart": {"write_count": total}, "signals": {"sighup": 1}})
        found = dict(leaves(since(before, now)))
        seen += found["uart.write_count"]
        assert seen == total
        assert found["utc_timestamp_ms"] == total
        assert found["signals.sighup"] == 1
        before = now


def test_extremes_and_durations_are_no_counters() -> None:
    def at(us: int) -> Tree:
        disk = Disk(us, Aggregate(us, us, us))
        sources = {"latencies_us": {"pause_vm": us}}
        return tree(0, sources, [("block", "a", disk)])

    found = dict(leaves(since(at(5), at(8))))
    assert found["latencies_us.pause_vm"] == 8
    assert found["block_a.read_agg.min_us"] == found["block_a.read_agg.max_us"] == 8
    assert found["block_a.read_agg.sum_us"] == found["block_a.read_bytes"] == 3
