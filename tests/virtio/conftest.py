"""Rigs of network and block devices, closed when their test ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from tests.helpers.block_bench import NEVER, Bench
from tests.helpers.net_model import MRG, NetRig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmmd.virtio.net import NetState

Make = Callable[..., NetRig]


@pytest.fixture
def make() -> Iterator[Make]:
    """Rigs that are closed when the test ends."""
    with ExitStack() as stack:

        def made(size: int = 0x20000, record: NetState | None = None) -> NetRig:
            return stack.enter_context(closing(NetRig(size, record)))

        yield made


@pytest.fixture
def rig(make: Make) -> NetRig:
    return make()


@pytest.fixture
def merging(make: Make) -> NetRig:
    made = make(0x40000)
    made.activate(MRG)
    return made


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def working() -> Iterator[Bench]:
    """A Writeback disk where every read, write and flush needs a worker."""
    made = Bench(cache_type="Writeback", nowait=True)
    made.device.native.slow_until_ns = NEVER
    yield made
    made.close()
