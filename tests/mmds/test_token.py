"""Tokens: who made them, how long they count, and that nobody else can."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd.mmds.token import MAX_TTL_S, TOKEN_CHARS, TokenAuthority, TtlError

NOW_MS = 5_000


def authority(instance_id: str = "vm", key: bytes = b"k") -> TokenAuthority:
    return TokenAuthority(instance_id, lambda size: (key * size)[:size])


@given(st.integers(1, MAX_TTL_S), st.integers(0, 1 << 50))
def test_a_token_counts_until_its_time(ttl_s: int, now_ms: int) -> None:
    made = authority()
    token = made.make(ttl_s, now_ms)
    assert len(token) == TOKEN_CHARS == 48
    assert token.isascii()
    end_ms = now_ms + ttl_s * 1000
    assert made.is_valid(token, now_ms)
    assert made.is_valid(token, end_ms - 1)
    assert not made.is_valid(token, end_ms)


@pytest.mark.parametrize("ttl_s", [0, -1, MAX_TTL_S + 1, 1 << 32])
def test_lifetimes_have_bounds(ttl_s: int) -> None:
    with pytest.raises(TtlError) as caught:
        authority().make(ttl_s, 0)
    assert str(caught.value) == (
        f"Invalid time to live value provided for token: {ttl_s}. "
        "Please provide a value between 1 and 21600."
    )


@given(st.data())
def test_no_other_text_counts(data: st.DataObject) -> None:
    token = authority().make(60, NOW_MS)
    at = data.draw(st.integers(0, len(token) - 1))
    char = data.draw(st.characters(exclude_characters=token[at]))
    changed = token[:at] + char + token[at + 1 :]
    assert not authority().is_valid(changed, NOW_MS)


@given(st.text(max_size=80) | st.text("Aa0+/=", max_size=72))
def test_nonsense_does_not_count(text: str) -> None:
    assert not authority().is_valid(text, 0)


def test_a_token_is_of_one_process_and_one_machine() -> None:
    token = authority().make(60, NOW_MS)
    assert authority().is_valid(token, NOW_MS)
    assert not authority(instance_id="other").is_valid(token, NOW_MS)
    assert not authority(key=b"l").is_valid(token, NOW_MS)
    padded = token + "="
    assert not authority().is_valid(padded, NOW_MS)
    assert not authority().is_valid(token + "\n", NOW_MS)
    assert not authority().is_valid(token + "A" * 30, NOW_MS)


def test_no_two_tokens_are_alike() -> None:
    made = TokenAuthority("vm", os.urandom)
    assert len({made.make(60, NOW_MS) for _ in range(100)}) == 100
