"""Block requests that go to workers: their order, their answers, their slots."""

from __future__ import annotations

import os
import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.block_bench import AT, BUFFER, DEVICE_ID, NEVER, Bench
from tests.helpers.block_model import (
    FLUSH,
    HEADER,
    IN,
    IOERR,
    OK,
    OUT,
    SECTOR,
    BlockModel,
    BlockRig,
)
from tests.helpers.driver import Buffer
from vmmd.virtio.block import Backing, Stop

LANES = 12


@st.composite
def lane_requests(draw: st.DrawFn) -> tuple[int, int, int]:
    """(kind, sector, sectors); its buffers will be its own."""
    kind = draw(st.sampled_from([IN, OUT, OUT, FLUSH]))
    return kind, draw(st.integers(0, 11)), draw(st.integers(1, 4))


STEPS = st.lists(
    st.one_of(lane_requests(), st.sampled_from(["drain", "collect", "first", "last"])),
    max_size=40,
)


@given(STEPS)
def test_workers_keep_the_order_of_what_overlaps(
    steps: list[tuple[int, int, int] | str],
) -> None:
    """Every request goes to a worker, workers end in any order, and the outcome
    is that of one request after the other."""
    bench = Bench(cache_type="Writeback", nowait=True)
    bench.device.native.slow_until_ns = NEVER
    model, posted, running = bench.model(), list[tuple[int, int]](), list[int]()
    for step in steps:
        if isinstance(step, str):
            take_step(bench, step, running)
        elif len(posted) < LANES:
            posted.append(post(bench, model, len(posted), step))
    for slot in running:
        bench.device.run(slot)
    bench.run_dry()
    assert sorted(bench.rig.driver.reap()) == sorted(posted)
    assert bench.file == model.disk
    assert bench.rig.bytes[AT:] == model.memory[AT:]
    bench.close()


def take_step(bench: Bench, step: str, running: list[int]) -> None:
    """Drain, collect, or let the first or last of the running workers end."""
    if step == "drain":
        bench.device.drain()
    elif step == "collect":
        bench.device.collect()
    else:
        while (slot := bench.device.take()) is not None:
            running.append(slot)
        if running:
            bench.device.run(running.pop(-1 if step == "last" else 0))


def post(
    bench: Bench, model: BlockModel, lane: int, asked: tuple[int, int, int]
) -> tuple[int, int]:
    """Post one request and let the model serve it; (head, written) to expect."""
    kind, sector, count = asked
    at, data, length = AT + 64 * lane, BUFFER + 4096 * lane, count * SECTOR
    segments = () if kind == FLUSH else (Buffer(data, length, kind == IN),)
    fill = bytes([lane + 1]) * length if kind == OUT else b""
    head = bench.request(kind, sector, segments, at)
    bench.rig.memory.write(data, fill)
    model.memory[at : at + HEADER] = struct.pack("<IIQ", kind, 0, sector)
    model.memory[data : data + len(fill)] = fill
    status = Buffer(at + HEADER, 1, writable=True)
    return head, model.serve((Buffer(at, HEADER), *segments, status))


class TestWorkers:
    def test_flush_waits_for_writes_before_it(self, working: Bench) -> None:
        working.request(OUT, 0, (Buffer(BUFFER, SECTOR),), AT)
        working.request(FLUSH, 0, (), AT + 32)
        working.device.drain()
        write = working.device.take()
        assert write is not None
        assert working.device.take() is None
        working.device.run(write)
        assert working.device.take() is None
        working.device.collect()
        assert working.status(AT) == OK
        assert working.device.take() is not None

    def test_write_during_flush_goes_to_a_worker(self) -> None:
        bench = Bench(cache_type="Writeback")
        bench.request(FLUSH, 0, (), AT)
        bench.request(OUT, 0, (Buffer(BUFFER, SECTOR),), AT + 32)
        bench.request(IN, 0, (Buffer(BUFFER + 512, SECTOR, writable=True),), AT + 64)
        bench.device.drain()
        assert bench.device.in_flight == 3
        bench.run_dry()
        assert bench.rig.memory.read(BUFFER + 512, SECTOR) == bytes(SECTOR)
        assert bench.device.statistics().flush_count == 1
        bench.close()

    def test_a_watched_write_that_does_not_sleep_is_not_slow(
        self, bench: Bench
    ) -> None:
        bench.device.native.watch_until_ns = NEVER
        bench.fill(4, OUT)
        assert bench.device.drain() is Stop.EMPTY
        assert bench.device.native.slow_until_ns == 0
        assert bench.device.statistics().write_count == 4

    def test_a_read_that_overlaps_nothing_overtakes(self) -> None:
        bench = Bench(cache_type="Writeback")
        bench.request(FLUSH, 0, (), AT)
        bench.request(IN, 0, (Buffer(BUFFER, SECTOR, writable=True),), AT + 32)
        bench.device.drain()
        assert (bench.status(AT), bench.status(AT + 32)) == (0xFF, OK)
        bench.run_dry()
        bench.close()

    def test_large_reads_go_to_a_worker(self) -> None:
        bench = Bench(rig=BlockRig(0x20000 + (2 << 20)))
        size = (1 << 20) + SECTOR
        os.ftruncate(bench.fd, size)
        bench.device.replace(Backing(bench.fd, size, DEVICE_ID), "large")
        bench.request(IN, 0, (Buffer(BUFFER, size, writable=True),), AT)
        bench.device.drain()
        assert bench.device.in_flight == 1
        bench.run_dry()
        assert bench.status(AT) == OK
        bench.close()

    def test_a_worker_that_fails(self, working: Bench) -> None:
        os.ftruncate(working.fd, 0)
        working.fill(1)
        working.run_dry()
        assert working.status(AT) == IOERR
        assert working.device.statistics().invalid_reqs_count == 1

    def test_reset_drops_what_workers_hold(self, working: Bench) -> None:
        working.fill(3)
        working.device.drain()
        slot = working.device.take()
        assert slot is not None
        working.device.reset()
        assert working.device.in_flight == 1
        working.rig.activate(working.device)
        working.device.run(slot)
        working.device.drain()
        assert working.device.in_flight == 0
        assert working.rig.driver.used_index() == 0
        assert working.rig.ring.native.stale == 0
