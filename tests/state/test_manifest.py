"""The memory manifest: round trip, and every wrong field by its name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.errors import SnapshotError
from vmmd.state.manifest import MemoryManifest, count_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096


@st.composite
def manifests(draw: st.DrawFn) -> MemoryManifest:
    """Up to three regions, any bitmap, checksums where there may be some."""
    regions, end = [], 0
    for gap, pages in draw(
        st.lists(
            st.tuples(st.integers(0, 9), st.integers(1, 1500)), min_size=1, max_size=3
        )
    ):
        regions.append((end + gap * PAGE, pages * PAGE))
        end += (gap + pages) * PAGE
    size = sum(length for _, length in regions)
    blocks = count_blocks(size)
    data = draw(st.integers(0, (1 << size // PAGE) - 1))
    unverified = draw(st.integers(0, (1 << blocks) - 1))
    sums = b""
    for index in range(blocks):
        known = data >> 512 * index & (1 << 512) - 1 and not unverified >> index & 1
        checksum = draw(st.integers(0, 2**32 - 1)) if known else 0
        sums += checksum.to_bytes(4, "little")
    kind = draw(st.sampled_from(("Full", "Diff")))
    parents = st.text(min_size=1, max_size=64) | st.none()
    return MemoryManifest(
        size=size,
        regions=tuple(regions),
        kind=kind,
        parent_id=draw(parents) if kind == "Diff" else None,
        pages=data.to_bytes(64 * blocks, "little"),
        checksums=sums,
        unverified=unverified.to_bytes((blocks + 7) // 8, "little"),
    )


@given(manifests())
def test_a_manifest_comes_back(made: MemoryManifest) -> None:
    assert MemoryManifest.from_plain(made.to_plain()) == made
    assert len(made.blocks) == made.block_count
    assert b"".join(block.pages for block in made.blocks) == made.pages
    for block in made.blocks:
        unknown = made.unverified[block.index >> 3] >> (block.index & 7) & 1
        assert (block.checksum is None) == bool(unknown)


def plain() -> dict[str, Any]:
    """A good one: 6 MiB in two regions, a page of data in its second block."""
    return MemoryManifest(
        size=6 << 20,
        regions=((0, 3 << 20), (1 << 32, 3 << 20)),
        kind="Diff",
        parent_id="before",
        pages=bytes(64) + b"\1" + bytes(127),
        checksums=bytes(4) + b"sums" + bytes(4),
        unverified=b"\0",
    ).to_plain()


def test_the_good_one_is_good() -> None:
    made = MemoryManifest.from_plain(plain())
    assert made.data_pages == 1
    assert made.page_size == PAGE
    assert made.block(1).checksum == int.from_bytes(b"sums", "little")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("size", 6, "size is not that of the regions"),
        ("size", True, "size is not that of the regions"),
        ("size", float(6 << 20), "size is not that of the regions"),
        ("page_size", 8192, "page_size is not 4096"),
        ("block_size", "2M", "block_size is not 2097152"),
        ("kind", "full", "kind is neither Full nor Diff"),
        ("kind", [], "kind is neither Full nor Diff"),
        ("kind", "Full", "parent_id is given, but a Full has none"),
        ("parent_id", "", "parent_id is not text of 1 to 64 characters"),
        ("parent_id", "x" * 65, "parent_id is not text of 1 to 64 characters"),
        ("parent_id", 7, "parent_id is not text of 1 to 64 characters"),
        ("regions", [], "regions are not 1 to 8"),
        ("regions", None, "regions are not 1 to 8"),
        ("regions", [[0, PAGE]] * 9, "regions are not 1 to 8"),
        ("regions", [[0, PAGE], [0, PAGE]], "regions overlap or are out of order"),
        ("regions", [[0, PAGE, 1]], "regions are not pairs of numbers"),
        ("regions", [[0, "x"]], "regions are not pairs of numbers"),
        ("regions", [[False, PAGE]], "regions are not pairs of numbers"),
        ("regions", [[-PAGE, PAGE]], "regions are not of whole pages"),
        ("regions", [[0, 0]], "regions are not of whole pages"),
        ("regions", [[1, PAGE]], "regions are not of whole pages"),
        ("regions", [[0, 1 << 60]], "regions reach beyond 52 bits of address"),
        ("pages", bytes(191), "pages is not 192 bytes"),
        ("pages", bytearray(192), "pages is not 192 bytes"),
        ("checksums", "x" * 12, "checksums is not 12 bytes"),
        ("checksums", b"sums" * 3, "checksums has one for block 0, which has none"),
        ("unverified", b"\x02", "checksums has one for block 1, which has none"),
        ("unverified", b"\x08", "unverified has bits beyond the end"),
        ("unverified", b"", "unverified is not 1 bytes"),
        ("more", 1, "more is unknown"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: object, text: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        MemoryManifest.from_plain(plain() | {key: value})
    assert str(caught.value) == f"memory manifest: {text}"


@pytest.mark.parametrize("key", sorted(plain()))
def test_what_is_missing_is_named(key: str) -> None:
    without = plain()
    del without[key]
    with pytest.raises(SnapshotError, match=f"memory manifest: {key} is missing"):
        MemoryManifest.from_plain(without)


def test_bits_past_a_short_last_block_are_refused() -> None:
    short = plain() | {"regions": [[0, PAGE]], "size": PAGE, "unverified": b"\0"}
    short |= {"pages": b"\2" + bytes(63), "checksums": bytes(4)}
    with pytest.raises(SnapshotError, match="pages has bits beyond the end"):
        MemoryManifest.from_plain(short)


leaves = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
trees = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.sampled_from(sorted(plain())), trees)
def test_anything_else_is_one_error_or_a_manifest(key: str, value: object) -> None:
    for hostile in (value, plain() | {key: value}):
        text = "memory manifest: "
        try:
            MemoryManifest.from_plain(hostile)
        except SnapshotError as error:
            text = str(error)
        assert text.startswith("memory manifest: ")


def quickest(call: Callable[[], object]) -> float:
    """Seconds of the best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_a_gibibyte_is_read_within_a_millisecond() -> None:
    blocks = 512
    whole = plain() | {"regions": [[0, 1 << 30]], "size": 1 << 30}
    whole |= {"pages": b"\xff" * 64 * blocks, "checksums": b"sums" * blocks}
    whole |= {"unverified": bytes(blocks // 8)}
    assert quickest(lambda: MemoryManifest.from_plain(whole)) < 1e-3
