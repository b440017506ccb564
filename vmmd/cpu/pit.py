"""The interval timer (i8254) that KVM emulates: kvm_pit_state2."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from vmmd.cpu import layout
from vmmd.state.record import I64, U8, U16, U32, Length, record

if TYPE_CHECKING:
    from typing import Self

CHANNELS = 3
_CHANNEL = struct.Struct("<IH10Bq")
_FLAGS = struct.Struct("<I36x")
PIT_SIZE = CHANNELS * _CHANNEL.size + _FLAGS.size


@record("kvm_pit_channel_state", 1)
class PitChannel:
    """``struct kvm_pit_channel_state``, 24 bytes.

    ``count_load_time`` is in nanoseconds of the host's monotonic clock; KVM
    counts anew from the moment it is set.
    """

    count: U32 = 0
    latched_count: U16 = 0
    count_latched: U8 = 0
    status_latched: U8 = 0
    status: U8 = 0
    read_state: U8 = 0
    write_state: U8 = 0
    write_latch: U8 = 0
    rw_mode: U8 = 0
    mode: U8 = 0
    bcd: U8 = 0
    gate: U8 = 0
    count_load_time: I64 = 0

    def pack(self) -> bytes:
        """The kernel's bytes."""
        return layout.pack(_CHANNEL, self)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        return layout.unpack(_CHANNEL, cls, raw)


@record("kvm_pit_state2", 1)
class PitState:
    """``struct kvm_pit_state2``, 112 bytes: three channels."""

    channels: Annotated[tuple[PitChannel, ...], Length(CHANNELS, CHANNELS)] = (
        PitChannel(),
    ) * CHANNELS
    flags: U32 = 0

    def pack(self) -> bytes:
        """The kernel's bytes. ValueError unless there are three channels."""
        if len(self.channels) != CHANNELS:
            raise ValueError(f"PitState: {len(self.channels)} channels, not {CHANNELS}")
        channels = b"".join(channel.pack() for channel in self.channels)
        return channels + layout.pack_values(_FLAGS, (self.flags,), "PitState")

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """From the kernel's bytes."""
        layout.check_size(raw, PIT_SIZE, "PitState")
        step, end = _CHANNEL.size, CHANNELS * _CHANNEL.size
        channels = (PitChannel.unpack(raw[i : i + step]) for i in range(0, end, step))
        return cls(channels=tuple(channels), flags=_FLAGS.unpack(raw[end:])[0])
