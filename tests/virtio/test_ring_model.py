"""ring.c against the plain-Python model: same calls, same results, same memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import event, given
from hypothesis import strategies as st

from tests.helpers.driver import Driver, RingLayout
from tests.helpers.model import RingModel
from tests.strategies import (
    MEMORY_SIZE,
    U32,
    Mischief,
    long_lists,
    mischief,
    ring_layouts,
)
from vmmd.errors import GuestError
from vmmd.memory import GuestMemory, Region
from vmmd.virtio.ring import Chain, Ring

DEVICE_VERBS = (
    *("serve", "serve", "serve", "pop", "pop", "push", "push_wrong", "undo_pop"),
    *("should_signal", "suppress_kicks", "arm_kicks", "save_restore"),
    *("reset", "reset"),
)
Step = Mischief | tuple[str, int]


@dataclass
class Rig:
    """The C ring and the model, each with its own equal memory and driver."""

    layout: RingLayout
    event_idx: bool
    popped: list[Chain] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ours, self.theirs = (
            GuestMemory([Region(0, bytearray(MEMORY_SIZE))]) for _ in range(2)
        )
        self.drivers = [
            Driver(memory, self.layout, self.event_idx)
            for memory in (self.ours, self.theirs)
        ]
        self.ring = Ring(self.ours)
        self.configure()
        self.model = RingModel(self.theirs, self.layout, self.event_idx)

    def configure(self) -> None:
        """Enable the C ring where the layout says."""
        at = self.layout
        self.ring.configure(
            at.size, at.desc, at.avail, at.used, event_idx=self.event_idx
        )

    def step(self, step: Step) -> None:
        """Do one thing on both sides and compare all that can be seen."""
        if isinstance(step, tuple):
            self.device(*step)
        else:
            for driver in self.drivers:
                step.apply(driver)
        assert self.ours.read(0, MEMORY_SIZE) == self.theirs.read(0, MEMORY_SIZE)
        assert self.ours.dirty_bitmaps() == self.theirs.dirty_bitmaps()
        assert self.ring.save() == self.model.save()
        assert self.ring.pending() == self.model.pending()

    def device(self, verb: str, value: int) -> None:
        """One verb of the device, on both sides."""
        match verb:
            case "pop" | "serve" | "save_restore":
                getattr(self, verb)()
            case "push" if self.popped:
                self.push(self.popped[value % len(self.popped)].head, value)
            case "push_wrong":
                self.push(value & 0xFFFF, value)
            case "undo_pop" if self.popped:
                chain = self.popped.pop()
                self.ring.undo_pop(chain)
                self.model.undo_pop(chain.head)
            case "should_signal" | "suppress_kicks" | "arm_kicks":
                assert getattr(self.ring, verb)() == getattr(self.model, verb)()
            case "reset" if self.model.fault:
                self.reset()

    def pop(self) -> None:
        """Pop on both sides; both give the same chain, or the same fault."""
        outcomes: list[Chain | str | None] = []
        for side in (self.ring, self.model):
            try:
                outcomes.append(side.pop())
            except GuestError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        event(
            outcomes[0] if isinstance(outcomes[0], str) else type(outcomes[0]).__name__
        )
        if isinstance(outcomes[0], Chain):
            self.popped.append(outcomes[0])

    def serve(self) -> None:
        """What a device does when it is kicked: answer all, then interrupt."""
        count = -1
        while count < len(self.popped):
            count = len(self.popped)
            self.pop()
        for chain in tuple(self.popped):
            self.push(chain.head, chain.writable_len)
        assert self.ring.should_signal() == self.model.should_signal()

    def push(self, head: int, written: int) -> None:
        """Push on both sides."""
        self.popped = [chain for chain in self.popped if chain.head != head]
        self.ring.push(head, written)
        self.model.push(head, written)
        assert self.ring.native.stale == self.model.stale

    def reset(self) -> None:
        """The driver resets the device and starts anew, as after a fault."""
        self.popped.clear()
        for driver in self.drivers:
            driver.reset()
        stale = self.model.stale
        self.model = RingModel(self.theirs, self.layout, self.event_idx, stale=stale)
        self.ring.reset()
        self.configure()

    def save_restore(self) -> None:
        """Go on with a ring restored from the record."""
        state = self.ring.save()
        self.ring = Ring(self.ours)
        self.ring.restore(state)
        self.ring.native.stale = self.model.stale
        if self.model.fault:
            self.model.fault = self.ring.fault


def steps() -> st.SearchStrategy[list[Step]]:
    """What both parties do, in any order."""
    verbs = st.tuples(st.sampled_from(DEVICE_VERBS), U32)
    return long_lists(st.one_of(mischief(), verbs), 40)


@given(ring_layouts(), st.booleans(), steps())
def test_ring_and_model_agree(
    layout: RingLayout, event_idx: bool, todo: list[Step]
) -> None:
    rig = Rig(layout, event_idx)
    for step in todo:
        rig.step(step)
    event(f"answered {min(rig.model.next_used, 5)}")


@given(steps(), st.integers(0, 0xFFFF))
def test_they_agree_where_indices_wrap(todo: list[Step], start: int) -> None:
    rig = Rig(RingLayout.at(0x1000, 4), event_idx=True)
    for driver in rig.drivers:
        driver.poke_avail_idx(start)
        driver.kicked_at = start
    rig.ring.native.next_avail = rig.model.next_avail = start
    rig.ring.native.next_used = rig.model.next_used = start
    for step in todo:
        rig.step(step)
