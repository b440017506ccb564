"""Chains of network buffers for Hypothesis: of any length, cut anywhere."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.helpers.driver import Buffer
from tests.helpers.net_model import Chain, NetRig

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

AT = NetRig.DATA
DATA_END = 0x20000


@st.composite
def cut(draw: st.DrawFn, total: int, *, writable: bool) -> Chain:
    """``total`` bytes of buffers anywhere in the data area, cut anywhere."""
    edges = [0, *sorted(draw(st.lists(st.integers(0, total), max_size=3))), total]
    return tuple(
        Buffer(draw(st.integers(AT, DATA_END - 1 - (b - a))), b - a, writable)
        for a, b in itertools.pairwise(edges)
    )


LENGTHS = st.one_of(st.integers(24, 30), st.integers(0, 200), st.integers(1528, 1534))


def transmitted() -> SearchStrategy[Chain]:
    """A chain to send; perhaps too short, perhaps with a writable part."""
    extra = st.one_of(st.just(()), cut(20, writable=True))
    return LENGTHS.flatmap(
        lambda n: st.tuples(cut(n, writable=False), extra).map(lambda p: p[0] + p[1])
    )


def separate(chains: list[Chain]) -> list[Chain]:
    """The same chains with buffers that do not overlap, in the data area."""
    at, made = AT, []
    for chain in chains:
        moved = []
        for buffer in chain:
            moved.append(Buffer(at, buffer.length, buffer.writable))
            at += buffer.length
        made.append(tuple(moved))
    return made
