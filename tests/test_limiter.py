"""Rate limiters on a clock of our own: bounds, full rate, saving, patching."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.config import RateLimiterConfig, TokenBucketConfig
from vmmd.errors import SnapshotError
from vmmd.frozen import dataclass
from vmmd.limiter import UNLIMITED, BucketState, LimiterState, RateLimiter, TokenBucket
from vmmd.state.codec import Entry, pack, unpack

MS, SECOND = 1_000_000, 1_000_000_000
U64_MAX = (1 << 64) - 1
START = 123_456_789

CONFIGS = st.builds(
    TokenBucketConfig,
    st.integers(1, 5000) | st.sampled_from([1 << 20, 10**9, U64_MAX]),
    st.none() | st.integers(0, 3000),
    st.integers(1, 3000) | st.just(U64_MAX // MS),
)
# What time passes, and how large a request is tried then.
STEPS = st.lists(
    st.tuples(st.integers(0, 3 * SECOND) | st.integers(0, 1000), st.integers(0, 9000)),
    max_size=40,
)


def bucket(size: int, refill_time: int, burst: int = 0) -> TokenBucket:
    state = BucketState(
        size=size, refill_time=refill_time, budget=size, one_time_burst=burst
    )
    return TokenBucket(state, START)


def bytes_only(config: TokenBucketConfig | None) -> RateLimiterConfig:
    return RateLimiterConfig(config, None)


@dataclass(frozen=True, slots=True)
class Taken:
    """What passed: when, and how much."""

    at_ns: int
    size: int


def play(limiter: RateLimiter, steps: list[tuple[int, int]], now: int) -> list[Taken]:
    """Try each request when its time has come; those that were let pass."""
    passed = []
    for wait, size in steps:
        now += wait
        if limiter.allowance(now)[1]:
            limiter.consume(1, size, now)
            passed.append(Taken(now, size))
    return passed


@given(CONFIGS, STEPS)
def test_never_more_than_burst_size_and_rate(
    config: TokenBucketConfig, steps: list[tuple[int, int]]
) -> None:
    """In no span of time; the last request of it may exceed the rest."""
    passed = play(RateLimiter.of(bytes_only(config), START), steps, START)
    rate = Fraction(config.size, config.refill_time * MS)
    for first in range(len(passed)):
        burst = config.one_time_burst or 0
        total = 0
        for taken in passed[first:]:
            span = taken.at_ns - passed[first].at_ns
            assert total <= burst + config.size + rate * span
            total += taken.size


@given(CONFIGS, st.lists(st.integers(1, 9000), min_size=1, max_size=40))
def test_who_always_wants_gets_the_full_rate(
    config: TokenBucketConfig, sizes: list[int]
) -> None:
    """Waking when told, nothing of the rate is lost: at each wake all that has
    come so far was taken, but what is there now."""
    limiter, now, total = RateLimiter.of(bytes_only(config), START), START, 0
    rate = Fraction(config.size, config.refill_time * MS)
    come: Fraction = Fraction((config.one_time_burst or 0) + config.size)
    for size in sizes:
        while (ready := limiter.ready_at_ns(now)) is not None:
            assert ready > now
            now = ready
        left = come + rate * (now - START) - total
        assert limiter.allowance(now)[1] == min(int(left), UNLIMITED) > 0
        limiter.consume(1, size, now)
        total += size


@given(CONFIGS, STEPS, STEPS, st.integers(0, 1 << 70))
def test_a_saved_one_goes_on_as_the_first(
    config: TokenBucketConfig,
    before: list[tuple[int, int]],
    after: list[tuple[int, int]],
    elsewhere: int,
) -> None:
    """Wherever its clock stands; and saving it changes nothing."""
    first = RateLimiter.of(RateLimiterConfig(config, config), START)
    play(first, before, START)
    now = START + sum(wait for wait, _ in before)
    state = first.save(now)
    twin = RateLimiter.restore(state, elsewhere)
    assert twin.save(elsewhere) == state
    for taken, same in zip(
        play(first, after, now), play(twin, after, elsewhere), strict=True
    ):
        assert taken.at_ns - now == same.at_ns - elsewhere
    later = sum(wait for wait, _ in after)
    assert first.save(now + later) == twin.save(elsewhere + later)


@given(CONFIGS, st.lists(st.integers(1, 5 * MS), max_size=200))
def test_asking_often_loses_nothing(
    config: TokenBucketConfig, waits: list[int]
) -> None:
    """A refill looked at a thousand times is the refill looked at once."""
    watched = TokenBucket(owing(config), START)
    other = TokenBucket(owing(config), START)
    now = START
    for wait in waits:
        now += wait
        watched.save(now)
        watched.take(0, now)
    assert watched.available(now) == other.available(now)
    assert watched.ready_at_ns(now) == other.ready_at_ns(now)


def owing(config: TokenBucketConfig) -> BucketState:
    """The bucket with nothing in it, and as much to pay first as it holds."""
    return BucketState(
        size=config.size,
        refill_time=config.refill_time,
        budget=-min(config.size, 1 << 62),
    )


class TestBucket:
    def test_starts_full_and_the_burst_goes_first(self) -> None:
        made = bucket(100, 1000, burst=50)
        assert made.available(START) == 150
        made.take(60, START)
        assert (made.burst, made.available(START)) == (0, 90)
        assert made.available(START + 100 * MS) == 100
        assert made.available(START + 100 * SECOND) == 100

    def test_the_burst_never_comes_back(self) -> None:
        made = bucket(100, 1000, burst=50)
        made.take(150, START)
        assert made.available(START + 100 * SECOND) == 100

    def test_refills_evenly(self) -> None:
        made = bucket(1000, 1000)
        made.take(1000, START)
        assert made.available(START + MS - 1) == 0
        assert made.available(START + MS) == 1
        assert made.available(START + 999 * MS) == 999

    def test_a_debt_is_paid_before_anything_passes(self) -> None:
        made = bucket(1000, 1000)
        made.take(4000, START)
        assert made.available(START + 3000 * MS) == 0
        assert made.available(START + 3001 * MS) == 1
        assert made.available(START + 60 * SECOND) == 1000

    def test_a_clock_that_stands_brings_nothing(self) -> None:
        made = bucket(10, 1)
        made.take(10, START)
        assert made.available(START) == made.available(START - 5) == 0

    @pytest.mark.parametrize(
        ("size", "refill_time", "wait_ms"),
        [(1000, 1000, 10), (100, 1000, 10), (10, 1000, 100), (1, 7, 7), (1000, 2, 1)],
    )
    def test_waits_for_a_few_ms_or_half_or_a_token(
        self, size: int, refill_time: int, wait_ms: int
    ) -> None:
        made = bucket(size, refill_time)
        assert made.ready_at_ns(START) is None
        made.take(size, START)
        assert made.ready_at_ns(START) == START + wait_ms * MS
        assert made.ready_at_ns(START + wait_ms * MS) is None


class TestLimiter:
    def test_without_limits(self) -> None:
        zero = TokenBucketConfig(0, 5, 10), TokenBucketConfig(5, None, 0)
        for config in (None, RateLimiterConfig(None, None), RateLimiterConfig(*zero)):
            limiter = RateLimiter.of(config, START)
            assert not limiter.limits
            limiter.consume(10**9, 10**15, START)
            assert limiter.allowance(START) == (UNLIMITED, UNLIMITED)
            assert limiter.ready_at_ns(START) is None
            assert limiter.save(START) is None

    def test_both_must_have_a_token(self) -> None:
        config = RateLimiterConfig(
            TokenBucketConfig(1000, None, 1000), TokenBucketConfig(2, None, 1000)
        )
        limiter = RateLimiter.of(config, START)
        assert limiter.allowance(START) == (2, 1000)
        limiter.consume(2, 1500, START)
        assert limiter.allowance(START) == (0, 0)
        assert limiter.allowance(START + 500 * MS) == (1, 0)
        assert limiter.ready_at_ns(START) == START + 510 * MS
        assert limiter.ready_at_ns(START + 510 * MS) is None

    def test_an_allowance_fits_the_counters_of_the_data_path(self) -> None:
        config = bytes_only(TokenBucketConfig(U64_MAX, U64_MAX, 1))
        assert RateLimiter.of(config, START).allowance(START)[1] == UNLIMITED

    def test_patch(self) -> None:
        small, large = TokenBucketConfig(10, 5, 1000), TokenBucketConfig(99, 1, 1000)
        limiter = RateLimiter.of(RateLimiterConfig(small, small), START)
        limiter.consume(15, 15, START)
        limiter.update(None, START)
        limiter.update(RateLimiterConfig(None, None), START)
        assert limiter.allowance(START) == (0, 0)
        limiter.update(RateLimiterConfig(large, None), START)
        assert limiter.allowance(START) == (0, 100)
        limiter.update(RateLimiterConfig(None, TokenBucketConfig(0, 7, 0)), START)
        assert limiter.allowance(START) == (UNLIMITED, 100)
        limiter.update(RateLimiterConfig(TokenBucketConfig(0, None, 1), None), START)
        assert not limiter.limits

    @given(STEPS, CONFIGS, CONFIGS)
    def test_a_patched_bucket_is_a_new_one(
        self,
        steps: list[tuple[int, int]],
        old: TokenBucketConfig,
        new: TokenBucketConfig,
    ) -> None:
        limiter = RateLimiter.of(RateLimiterConfig(old, old), START)
        play(limiter, steps, START)
        now = START + sum(wait for wait, _ in steps)
        before = limiter.save(now)
        assert before is not None
        limiter.update(bytes_only(new), now)
        fresh, after = RateLimiter.of(bytes_only(new), now), limiter.save(now)
        assert after is not None
        assert fresh.save(now) == LimiterState(bandwidth=after.bandwidth)
        assert after.ops == before.ops


FIELDS = {
    "size": 10,
    "refill_time": 10,
    "budget": -5,
    "one_time_burst": 1,
    "elapsed_ns": 2,
}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("size", 0, "0 is out of range"),
        ("refill_time", 0, "0 is out of range"),
        ("refill_time", U64_MAX // MS + 1, f"{U64_MAX // MS + 1} is out of range"),
        ("one_time_burst", -1, "-1 is out of range"),
        ("budget", -(1 << 63) - 1, f"{-(1 << 63) - 1} is out of range"),
        ("elapsed_ns", -1, "-1 is out of range"),
    ],
)
def test_a_state_that_cannot_be_names_the_field(
    name: str, value: int, says: str
) -> None:
    entry = Entry("token_bucket", "", 1, {**FIELDS, name: value})
    with pytest.raises(SnapshotError) as caught:
        unpack(entry, BucketState)
    assert str(caught.value) == f"token_bucket: {name}: {says}"


def test_more_than_the_bucket_holds() -> None:
    entry = Entry("token_bucket", "", 1, {**FIELDS, "budget": 11})
    with pytest.raises(SnapshotError, match="budget is 11 of 10"):
        unpack(entry, BucketState)


@given(CONFIGS, STEPS)
def test_every_state_goes_into_a_file(
    config: TokenBucketConfig, steps: list[tuple[int, int]]
) -> None:
    limiter = RateLimiter.of(RateLimiterConfig(config, None), START)
    play(limiter, steps, START)
    state = limiter.save(START + sum(wait for wait, _ in steps))
    assert state is not None
    assert unpack(pack(state), LimiterState) == state
