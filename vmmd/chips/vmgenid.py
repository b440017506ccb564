"""VMGenID: sixteen bytes in guest memory that are never the same twice.

A guest that finds others after an interrupt knows that it was restored, and
reseeds its random number generator. It finds the bytes by ACPI (``VMGENCTR``,
its ADDR package); the interrupt reaches it as a notification of that device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmmd.boot import layout
from vmmd.chips.acpi_place import Place
from vmmd.state.record import U32, record

if TYPE_CHECKING:
    from typing import Self

SIZE = 16
_ALIGN = 8


class VmGenId:
    """Where the bytes are and which interrupt announces others."""

    def __init__(self, state: VmGenIdState) -> None:
        state.check()
        self.address = state.address
        self.gsi = state.gsi

    @classmethod
    def restore(cls, state: VmGenIdState) -> Self:
        """From a record, at a boot the default one. SnapshotError: it cannot be."""
        return cls(state)

    def renew(self, generation_id: bytes) -> tuple[int, bytes]:
        """``(gpa, bytes)`` to write: at a boot, and at each restore others.

        ``generation_id`` is random and has 16 bytes, or it is a ValueError.
        After a restore the interrupt follows, once KVM's state is set.
        """
        if len(generation_id) != SIZE:
            raise ValueError(f"a generation id of {len(generation_id)} bytes")
        return self.address, generation_id

    def save(self) -> VmGenIdState:
        """The record. The bytes are not kept: they shall not come back."""
        return VmGenIdState(address=self.address, gsi=self.gsi)


@record("vmgenid", 1)
class VmGenIdState:
    """The guest-physical address of the bytes, and the interrupt."""

    gsi: U32
    address: int = layout.VMGENID

    def check(self) -> None:
        """SnapshotError naming the field that is out of range."""
        Place(self.address, SIZE, _ALIGN, self.gsi).check("vmgenid", "address")
