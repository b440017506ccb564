"""The smallest whole device: it answers each chain with what it was sent.

It shows the contract, and carries the tests of the transport and of the generic
properties, which every real device owes as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmmd.errors import GuestError, SnapshotError
from vmmd.state.record import record
from vmmd.virtio.device import RING_EVENT_IDX, VERSION_1, Activation, Interrupt

if TYPE_CHECKING:
    from vmmd.virtio.ring import Ring

CONFIG_LENGTH = 12


@dataclass(frozen=True, slots=True)
class EchoStatistics:
    """Chains answered."""

    answered: int


class EchoDevice:
    """Two queues; of its configuration the driver may write bytes 4 to 7."""

    DEVICE_ID = 42
    QUEUE_SIZES = (8, 4)
    features = VERSION_1 | RING_EVENT_IDX | 1 << 5

    def __init__(self, state: EchoState) -> None:
        self.config = bytearray(state.config)
        self.answered = state.answered
        self.resets = 0
        self.refuse = ""
        self.activation: Activation | None = None

    @classmethod
    def restore(cls, state: EchoState) -> EchoDevice:
        """A device that goes on where ``state`` was saved."""
        return cls(state)

    def config_space(self) -> bytes:
        """Twelve bytes: more than one atomic store."""
        return bytes(self.config)

    def write_config(self, offset: int, data: bytes) -> None:
        """Bytes 4 to 7 are the driver's."""
        for i, byte in enumerate(data, offset):
            if 4 <= i < 8:
                self.config[i] = byte

    def activate(self, activation: Activation) -> None:
        """Serve; or refuse, if the test said so."""
        if self.refuse:
            raise GuestError(self.refuse)
        self.activation = activation

    def reset(self) -> None:
        """Stop serving."""
        self.activation = None
        self.resets += 1

    def serve(self) -> None:
        """Answer all that waits. GuestError when a ring is broken."""
        if self.activation is None:
            return
        for ring in self.activation.rings:
            self._drain(ring)
            if ring.should_signal():
                self.activation.irq.raise_(Interrupt.USED_RING)

    def _drain(self, ring: Ring) -> None:
        ring.suppress_kicks()
        more = True
        while more:
            while (chain := ring.pop()) is not None:
                written = ring.scatter(chain, ring.gather(chain, 4096))
                ring.push(chain.head, written)
                self.answered += 1
            more = ring.arm_kicks()

    def save(self) -> EchoState:
        """What a twin needs."""
        return EchoState(config=bytes(self.config), answered=self.answered)

    def statistics(self) -> EchoStatistics:
        """Its one counter."""
        return EchoStatistics(self.answered)


@record("echo", 1)
class EchoState:
    """The configuration and the count."""

    config: bytes = bytes(CONFIG_LENGTH)
    answered: int = 0

    def __post_init__(self) -> None:
        """SnapshotError: a wrong length."""
        if len(self.config) != CONFIG_LENGTH or self.answered < 0:
            raise SnapshotError("echo: config or answered is out of range")
