"""The metadata service of the running process: its store, and its interfaces."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, cast

from vmmd import actions as a
from vmmd.errors import ExitError
from vmmd.http import objects
from vmmd.http.serde import SerdeFault, dump, load
from vmmd.loop.assemble import net_name
from vmmd.mmds.service import Mmds
from vmmd.mmds.state import MmdsState
from vmmd.mmds.store import NotInitialized, StoreError
from vmmd.resources.fault import ResourceFault, RustError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmmd.config import MmdsConfig
    from vmmd.loop.options import Options
    from vmmd.loop.pump import Pump
    from vmmd.mmds.responder import Responder

_BAD_JSON = "MMDS error: metadata provided not valid json: "


def contents_of(text: str) -> a.PutMmds:
    """What the file of ``--metadata`` says. ExitError if it is no JSON."""
    try:
        return a.PutMmds(cast("a.JsonValue", load(objects.JSON, text.encode())))
    except SerdeFault as fault:
        raise ExitError(f"{_BAD_JSON}{fault}", f"{_BAD_JSON}{fault}") from fault


class Metadata:
    """One per process. The store is there before an interface serves it."""

    def __init__(self, options: Options) -> None:
        limit, owner = options.mmds_size_limit, options.instance_id
        self._mmds = Mmds(limit, owner, dump, os.urandom)
        self._log = options.logger.channel("main", "vmm::rpc_interface")
        self._responders: list[Responder] = []

    def perform(self, action: a.Action, *, served: bool) -> a.Answer:
        """Carry out GET, PUT or PATCH of ``/mmds``.

        ``served``: whether the guest can reach it, or still may. StoreError if not,
        and for what does not fit.
        """
        if not served:
            raise NotInitialized
        store = self._mmds.store
        match action:
            case a.PutMmds(value):
                store.put(value)
            case a.PatchMmds(value):
                store.patch(value)
            case _:
                value = store.value
                return a.Answer(200, {} if value is None else value)
        return a.NO_CONTENT

    def fill(self, contents: a.PutMmds) -> None:
        """Put the contents of the file of ``--metadata``. Raises ResourceFault."""
        try:
            self._mmds.store.put(contents.value)
        except StoreError as fault:
            error = RustError(fault.reason, fault.debug)
            raise ResourceFault("mmds-data", error) from fault
        self._log.info("Successfully added metadata to mmds from file")

    def attach(self, pumps: Mapping[str, Pump], config: MmdsConfig) -> None:
        """Have the interfaces that are named answer for the service."""
        from vmmd.loop.net import Nic
        from vmmd.mmds.responder import Responder

        state = MmdsState(version=config.version.value, imds_compat=config.imds_compat)
        self._mmds.configure(state)
        address = bytes(map(int, (config.ipv4_address or "").split(".")))
        for iface_id in config.network_interfaces:
            nic = pumps[net_name(iface_id)]
            if not isinstance(nic, Nic):
                raise TypeError(f"{iface_id} is served by a {type(nic).__name__}")
            self._responders.append(Responder(self._mmds, address))
            nic.answer_by(self._responders[-1], address)

    def statistics(self) -> dict[str, int]:
        """Counters of the service and all its interfaces, by the metrics' names."""
        found = Counter(self._mmds.counters.as_dict())
        for responder in self._responders:
            found.update(responder.statistics())
        return dict(found)
