"""What all records of KVM's structs have in common, for tests over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Self


class KvmStruct(Protocol):
    """A record that packs to the bytes of a struct."""

    def pack(self) -> bytes: ...

    @classmethod
    def unpack(cls, raw: bytes) -> Self: ...
