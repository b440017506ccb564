"""block.c against the model, over honest and hostile requests."""

from __future__ import annotations

import itertools
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.block_bench import AT, BUFFER, DEVICE_ID, SECTORS, Bench
from tests.helpers.block_model import (
    FLUSH,
    GET_ID,
    HEADER,
    IN,
    IOERR,
    OK,
    OUT,
    SECTOR,
    UNSUPP,
    Chain,
)
from tests.helpers.driver import Buffer
from vmmd.virtio.block import Backing, BlockDevice, BlockState, Stop

if TYPE_CHECKING:
    from vmmd.memory import GuestMemory


@st.composite
def buffers(draw: st.DrawFn, total: int, *, writable: bool) -> Chain:
    """``total`` bytes of buffers anywhere in the data area, cut anywhere."""
    edges = [0, *sorted(draw(st.lists(st.integers(0, total), max_size=3))), total]
    lengths = [b - a for a, b in itertools.pairwise(edges)]
    return tuple(
        Buffer(draw(st.integers(AT, 0x1E000 - length)), length, writable)
        for length in lengths
    )


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Chain]:
    """A header and a chain to carry it: mostly possible, often odd."""
    kind = draw(st.sampled_from([IN, IN, OUT, OUT, FLUSH, GET_ID, 2, 0xFFFFFFFF]))
    far = st.sampled_from([1 << 55, (1 << 64) - 1, (1 << 64) - 8])
    sector = draw(st.one_of(st.integers(0, SECTORS + 1), far))
    size = draw(st.sampled_from([0, 512, 1024, 4096, 511, 20, 19]))
    header_len = draw(st.sampled_from([HEADER] * 12 + [0, 7, 15]))
    status_len = draw(st.sampled_from([1] * 12 + [0]))
    out, back = (size, 0) if kind == OUT else (0, size)
    readable = draw(buffers(header_len + out, writable=False))
    writable = draw(buffers(back + status_len, writable=True))
    return struct.pack("<IIQ", kind, 0, sector), readable + writable


def scatter(memory: GuestMemory, header: bytes, chain: Chain) -> None:
    """Put the header into the chain's first readable bytes."""
    for buffer in chain:
        if not buffer.writable:
            memory.write(buffer.gpa, header[: buffer.length])
            header = header[buffer.length :]


@given(st.lists(requests(), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_like_the_model(
    batch: list[tuple[bytes, Chain]], read_only: bool, writeback: bool
) -> None:
    bench = Bench(read_only, "Writeback" if writeback else "Unsafe")
    for header, chain in batch:
        scatter(bench.rig.memory, header, chain)
        model = bench.model()
        expected = (bench.rig.driver.add(chain), model.serve(chain))
        bench.run_dry()
        assert bench.rig.driver.reap() == [expected]
        assert bench.file == model.disk
        assert bench.rig.bytes[AT:] == model.memory[AT:]
    bench.close()


class TestAnswers:
    def test_get_id(self, bench: Bench) -> None:
        bench.request(GET_ID, 0, (Buffer(BUFFER, 20, writable=True),), AT)
        bench.device.drain()
        assert bench.status(AT) == OK
        assert bench.rig.memory.read(BUFFER, 20) == DEVICE_ID.ljust(20, b"\0")

    def test_unknown_type(self, bench: Bench) -> None:
        bench.request(77, 0, (), AT)
        bench.device.drain()
        assert bench.status(AT) == UNSUPP
        assert bench.device.statistics().invalid_reqs_count == 1

    def test_write_to_read_only(self) -> None:
        bench = Bench(read_only=True)
        bench.request(OUT, 0, (Buffer(BUFFER, SECTOR),), AT)
        bench.device.drain()
        assert bench.status(AT) == IOERR
        assert bench.file == bench.disk
        bench.close()

    def test_file_that_got_shorter(self, bench: Bench) -> None:
        os.ftruncate(bench.fd, SECTOR)
        bench.request(IN, 0, (Buffer(BUFFER, 2 * SECTOR, writable=True),), AT)
        bench.device.drain()
        assert bench.status(AT) == IOERR
        assert bench.rig.driver.reap()[0][1] == SECTOR + 1
        assert bench.device.statistics().invalid_reqs_count == 1

    def test_no_room_for_a_status(self, bench: Bench) -> None:
        head = bench.rig.driver.add((Buffer(AT, HEADER),))
        bench.device.drain()
        assert bench.rig.driver.reap() == [(head, 0)]
        assert bench.device.statistics().execute_fails == 1

    def test_unsafe_flush_needs_no_worker(self, bench: Bench) -> None:
        bench.request(FLUSH, 0, (), AT)
        assert bench.device.drain() is Stop.EMPTY
        assert bench.status(AT) == OK

    def test_marks_what_it_writes(self, bench: Bench) -> None:
        bench.request(IN, 0, (Buffer(BUFFER, 8192, writable=True),), AT)
        bench.rig.memory.clear_dirty()
        bench.device.drain()
        dirty = int.from_bytes(bench.rig.memory.dirty_bitmaps()[0], "little")
        ring, data = bench.rig.layout.used >> 12, BUFFER >> 12
        assert dirty == 1 << ring | 1 << (AT >> 12) | 3 << data


class TestStops:
    def test_requests(self, bench: Bench) -> None:
        bench.device.native.max_requests = 3
        bench.fill(5)
        assert bench.device.drain() is Stop.BUDGET
        assert len(bench.rig.driver.reap()) == 3
        assert not bench.rig.driver.kick_due()
        assert bench.device.statistics().remaining_reqs_count == 2
        assert bench.device.drain() is Stop.EMPTY
        assert len(bench.rig.driver.reap()) == 2
        assert bench.rig.driver.kick_due()

    def test_bytes(self, bench: Bench) -> None:
        bench.device.native.max_bytes = 2 * SECTOR
        bench.fill(5)
        assert bench.device.drain() is Stop.BUDGET
        assert len(bench.rig.driver.reap()) == 2

    def test_time(self, bench: Bench) -> None:
        bench.device.native.max_ns = 0
        bench.fill(5)
        assert bench.device.drain() is Stop.BUDGET
        assert not bench.rig.driver.reap()

    @pytest.mark.parametrize("limit", ["ops_allowed", "bytes_allowed"])
    def test_tokens(self, bench: Bench, limit: str) -> None:
        setattr(bench.device.native, limit, 2 if limit == "ops_allowed" else SECTOR + 1)
        bench.fill(3)
        assert bench.device.drain() is Stop.THROTTLED
        assert len(bench.rig.driver.reap()) == 2
        assert bench.device.native.ops_used == 2
        assert bench.device.native.bytes_used == 2 * SECTOR
        assert bench.device.drain() is Stop.EMPTY
        assert bench.device.statistics().rate_limiter_throttled_events == 1

    def test_slots(self, working: Bench) -> None:
        working.fill(10)
        assert working.device.drain() is Stop.WORKER
        assert working.device.in_flight == 8
        assert not working.rig.driver.reap()
        working.work()
        assert working.device.drain() is Stop.WORKER
        assert len(working.rig.driver.reap()) == 1
        working.run_dry()
        assert len(working.rig.driver.reap()) == 9
        assert working.device.statistics().worker_count == 10
        assert working.device.statistics().io_engine_throttled_events >= 2

    def test_broken_ring(self, bench: Bench) -> None:
        bench.fill(1)
        bench.rig.driver.poke_avail_idx(1000)
        assert bench.device.drain() is Stop.BROKEN
        bench.device.mark_fault()
        assert bench.device.fault == bench.rig.ring.fault != ""
        assert bench.device.drain() is Stop.BROKEN
        assert bench.device.statistics().event_fails == 1

    def test_without_a_ring(self, bench: Bench) -> None:
        bench.fill(1)
        bench.device.reset()
        assert bench.device.drain() is Stop.EMPTY
        assert not bench.rig.driver.reap()


class TestInterrupts:
    def test_one_for_a_batch(self, bench: Bench) -> None:
        bench.fill(5)
        bench.device.drain()
        assert bench.rig.irq.raised == 1
        bench.device.drain()
        assert bench.rig.irq.raised == 1

    def test_none_when_not_wanted(self, bench: Bench) -> None:
        bench.rig.driver.want_interrupts(False)
        bench.fill(5)
        bench.device.drain()
        assert bench.rig.irq.raised == 0

    def test_event_idx(self, bench: Bench) -> None:
        bench.rig.activate(bench.device, event_idx=True)
        bench.rig.driver.want_interrupt_at(0)
        bench.fill(2)
        bench.device.drain()
        assert bench.rig.irq.raised == 1
        bench.rig.driver.want_interrupt_at(4)
        bench.fill(2)
        bench.device.drain()
        assert bench.rig.irq.raised == 1
        bench.fill(1)
        bench.device.drain()
        assert bench.rig.irq.raised == 2

    def test_for_what_a_worker_did(self, working: Bench) -> None:
        working.fill(1)
        working.device.drain()
        assert working.rig.irq.raised == 0
        working.work()
        working.device.collect()
        assert working.rig.irq.raised == 1


class TestSpin:
    def serve(self, bench: Bench, count: int) -> None:
        for _ in range(count):
            bench.request(UNSUPP, 0, (), AT)
            bench.device.drain()
            bench.rig.driver.reap()

    def test_probes_ever_more_rarely(self, bench: Bench) -> None:
        bench.device.native.spin_ns = 1
        self.serve(bench, 63)
        assert bench.device.statistics().spin_count == 0
        self.serve(bench, 1)
        assert bench.device.statistics().spin_count == 1
        self.serve(bench, 127)
        assert bench.device.statistics().spin_count == 1
        self.serve(bench, 1 + 256 + 512 + 1024 + 2048 + 4096 + 4096)
        assert bench.device.statistics().spin_count == 8

    def test_four_misses_undo_sixteen_hits(self, bench: Bench) -> None:
        bench.device.native.spin_ns = 1
        bench.device.native.spin.score = 16
        self.serve(bench, 30)
        assert bench.device.statistics().spin_count == 4

    def test_a_doze_is_learned_like_a_spin(self, bench: Bench) -> None:
        kick = os.eventfd(0, os.EFD_NONBLOCK)
        bench.device.watch(kick, -1)
        bench.device.native.doze_ns = 1
        bench.device.native.doze.score = 16
        self.serve(bench, 30)
        assert bench.device.statistics().doze_count == 4
        assert bench.device.statistics().doze_hit_count == 0
        os.close(kick)

    def test_an_idle_drain_does_not_spin(self, bench: Bench) -> None:
        bench.device.native.spin_ns = 1
        bench.device.native.spin.score = 16
        bench.device.drain()
        assert bench.device.statistics().spin_count == 0
        assert bench.device.statistics().no_avail_buffer == 1


class TestContract:
    @pytest.mark.parametrize(
        ("read_only", "cache_type", "offered"),
        [
            (False, "Unsafe", 0),
            (True, "Unsafe", 1 << 5),
            (False, "Writeback", 1 << 9),
            (True, "Writeback", 1 << 5 | 1 << 9),
        ],
    )
    def test_features(self, read_only: bool, cache_type: str, offered: int) -> None:
        bench = Bench(read_only, cache_type)
        assert bench.device.features == offered | 1 << 32 | 1 << 29
        bench.close()

    def test_config_space(self, bench: Bench) -> None:
        assert bench.device.config_space() == SECTORS.to_bytes(8, "little")
        bench.device.replace(Backing(bench.fd, 700, b""), "other")
        assert bench.device.save().path_on_host == "other"
        assert bench.device.config_space() == (1).to_bytes(8, "little")
        assert bench.device.statistics().update_count == 1

    def test_save_is_what_it_was_made_of(self, bench: Bench) -> None:
        record = BlockState(
            drive_id="x", path_on_host="p", is_read_only=True, cache_type="Writeback"
        )
        device = BlockDevice.restore(record, Backing(bench.fd, 512, b""))
        assert device.save() == record

    def test_statistics(self, bench: Bench) -> None:
        bench.fill(3)
        bench.device.drain()
        bench.fill(2, OUT)
        bench.device.drain()
        seen = bench.device.statistics()
        assert (seen.read_count, seen.read_bytes) == (3, 3 * SECTOR)
        assert (seen.write_count, seen.write_bytes) == (2, 2 * SECTOR)
        assert seen.read_agg.min_us <= seen.read_agg.max_us <= seen.read_agg.sum_us
