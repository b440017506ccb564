"""The boot timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmmd.chips.boottimer import BootTimer, boot_time_text


def test_the_byte_in_its_place_is_the_signal() -> None:
    timer = BootTimer()
    timer.write(0, 1, 123)
    assert [timer.take_signal(), timer.take_signal()] == [True, False]
    assert timer.statistics().signal_count == 1


@given(
    offset=st.integers(0, 4095),
    size=st.sampled_from([1, 2, 4, 8]),
    value=st.integers(0, 1 << 64),
)
def test_nothing_else_is(offset: int, size: int, value: int) -> None:
    timer = BootTimer()
    timer.write(offset, size, value)
    assert timer.take_signal() == ((offset, size, value) == (0, 1, 123))
    assert timer.read(offset, size) == 0


def test_the_log_line_is_firecrackers() -> None:
    assert (
        boot_time_text(93_284, 1_999)
        == "Guest-boot-time =  93284 us 93 ms,   1999 CPU us 1 CPU ms"
    )
    assert (
        boot_time_text(12_345_678, 0)
        == "Guest-boot-time = 12345678 us 12345 ms,      0 CPU us 0 CPU ms"
    )
