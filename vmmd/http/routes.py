"""Requests to actions: one table of methods and paths.

``parse`` checks what a request says by itself: path, ids, body. Whether it may
be done now is for :mod:`vmmd.lifecycle` and the machine to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

from vmmd import actions as a
from vmmd import config as c
from vmmd import snapshot_params as p
from vmmd.errors import ConfigError
from vmmd.frozen import dataclass
from vmmd.rust import debug_str

from . import bodies as b
from . import objects
from .serde import SerdeFault, load

if TYPE_CHECKING:
    from .shapes import Shape


class ApiFault(ConfigError):
    """A request that names no action.

    ``str()`` is the fault message; ``debug`` is what the log has of it: the
    variant of Firecracker's RequestError, of a plain text if none is given.
    """

    def __init__(self, text: str, debug: str = "") -> None:
        super().__init__(text)
        self.debug = debug or f"Generic(BadRequest, {debug_str(text)})"


@dataclass(frozen=True, slots=True)
class Request:
    """An action, and what to warn about if it was asked for in an old way.

    ``deprecation`` is the log's text; the answer then carries the header
    ``Deprecation: true``, whatever the outcome.
    """

    action: a.Action
    deprecation: str | None = None


Tokens: TypeAlias = tuple[str, ...]
# (tokens of the path, body) -> the request; a body that may not be is empty.
Handler: TypeAlias = Callable[[Tokens, bytes], Request]

_EMPTY = {
    "GET": "GET request cannot have a body.",
    "PUT": "Empty PUT request.",
    "PATCH": "Empty PATCH request.",
    "DELETE": "Empty Delete request.",
}
_BAD_ID = "API Resource IDs can only contain alphanumeric characters and underscores."
_OTHER_ID = "The id from the path does not match the id from the body!"
_MISSING_BACKEND = "missing field: either `mem_backend` or `mem_file_path` is required"
_TWO_BACKENDS = (
    "too many fields: either `mem_backend` or `mem_file_path` exclusively is required"
)
_OLD_LOAD = (
    "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are deprecated."
)
_OLD_CREATE = "PUT /snapshot/create: 'version' field is deprecated."
_OLD_MMDS = "PUT /mmds/config: V1 is deprecated. Use V2 instead."
_OLD_VSOCK = "PUT /vsock: vsock_id field is deprecated."


def parse(method: str, path: str, body: bytes | None) -> Request:
    """The action that a request asks for.

    ``path`` is absolute (without scheme and host); ``body`` None means a request
    without one. Raises ApiFault.
    """
    tokens = split(path)
    first = tokens[0] if tokens else ""
    if (method, first) == ("PATCH", "balloon"):
        return Request(_patch_balloon(tokens, body))
    if (body is not None) == (method in ("GET", "DELETE")):
        raise ApiFault(_EMPTY[method])
    handler = _ROUTES.get((method, first))
    if handler is None:
        raise _no_route(method, first)
    return handler(tokens, body or b"")


def split(path: str) -> Tokens:
    """The tokens of a path: leading slashes and one trailing slash do not count."""
    tokens = path.lstrip("/").split("/")
    return tuple(tokens if tokens[-1] else tokens[:-1])


def checked_id(tokens: Tokens) -> str:
    """The id in a path. Raises ApiFault."""
    name = tokens[1] if len(tokens) > 1 else ""
    if not name:
        raise ApiFault("The ID cannot be empty.", "EmptyID")
    if not all(char == "_" or _is_alphanumeric(char) for char in name):
        raise ApiFault(_BAD_ID, "InvalidID")
    return name


def _is_alphanumeric(char: str) -> bool:
    # Python's isalnum knows a few digits more (superscripts are numeric to both).
    return char.isalpha() or char.isnumeric()


def _no_route(method: str, what: str) -> ApiFault:
    return ApiFault(
        f"Invalid request method and/or path: {method} {what}.",
        f"InvalidPathMethod({debug_str(what)}, {method.capitalize()})",
    )


def _load(shape: Shape, body: bytes) -> object:
    try:
        return load(shape, body)
    except SerdeFault as fault:
        raise _serde_fault(fault) from None


def _serde_fault(fault: SerdeFault) -> ApiFault:
    what = "An error occurred when deserializing the json body of a request"
    return ApiFault(f"{what}: {fault}.", f"SerdeJson({fault.debug})")


def _plain(action: a.Action) -> Handler:
    """An action that nothing more is said of."""
    return lambda _tokens, _body: Request(action)


def _body(action: Callable[..., a.Action], shape: Shape) -> Handler:
    """An action whose contents are the body."""
    return lambda _tokens, body: Request(action(_load(shape, body)))


def _second(method: str, token: str, handler: Handler) -> Handler:
    """A path whose second token must be this one."""

    def handle(tokens: Tokens, body: bytes) -> Request:
        if tokens[1:2] != (token,):
            raise _no_route(method, tokens[0])
        return handler(tokens, body)

    return handle


def _named(action: Callable[..., a.Action], shape: Shape, id_field: str) -> Handler:
    """An action on what path and body name alike."""

    def handle(tokens: Tokens, body: bytes) -> Request:
        name = checked_id(tokens)
        value = _load(shape, body)
        other = getattr(value, id_field)
        if other != name:
            raise ApiFault(_id_text(id_field, name, other))
        return Request(action(value))

    return handle


def _id_text(id_field: str, path_id: str, body_id: str) -> str:
    if id_field != "iface_id":
        return _OTHER_ID
    return (
        f"The id from the path [{path_id}] does not match the id from the body"
        f" [{body_id}]!"
    )


def _delete(kind: a.DeviceKind) -> Handler:
    return lambda tokens, _body: Request(a.DeleteDevice(kind, checked_id(tokens)))


# -- requests that need a look of their own ----------------------------------


def _get_balloon(tokens: Tokens, _body: bytes) -> Request:
    match tokens[1:]:
        case ():
            return Request(a.GetBalloon())
        case ("statistics", *_):
            return Request(a.GetBalloonStatistics())
        case ("hinting", "status", *_):
            return Request(a.GetHintingStatus())
        case ("hinting", *more):
            raise ApiFault(f"Unrecognized GET request path `/hinting/{_first(more)}`.")
        case rest:
            raise ApiFault(f"Unrecognized GET request path `{rest[0]}`.")


def _patch_balloon(tokens: Tokens, body: bytes | None) -> a.Action:
    if tokens[1:2] == ("hinting",):
        return _patch_hinting(tokens[2:], body)
    if body is None:
        raise ApiFault(_EMPTY["PATCH"])
    if tokens[1:2] == ("statistics",):
        stats = _load(objects.BALLOON_STATS_UPDATE, body)
        return a.PatchBalloonStatistics(cast("c.BalloonStatsUpdate", stats))
    update = _load(objects.BALLOON_UPDATE, body)
    return a.PatchBalloon(cast("c.BalloonUpdate", update))


def _patch_hinting(tokens: Tokens, body: bytes | None) -> a.Action:
    match _first(tokens):
        case "start":
            start = _load(objects.HINTING_START, body) if body else c.HintingStart()
            return a.StartHinting(cast("c.HintingStart", start))
        case "stop":
            return a.StopHinting()
        case other:
            raise ApiFault(f"Unrecognized PATCH request path `/hinting/{other}`.")


def _first(tokens: Sequence[str]) -> str:
    return tokens[0] if tokens else ""


def _put_machine_config(_tokens: Tokens, body: bytes) -> Request:
    machine = cast("c.MachineConfig", _load(objects.MACHINE_CONFIG, body))
    old = _old_template("PUT", machine.cpu_template is not None)
    return Request(a.PutMachineConfig(machine), old)


def _patch_machine_config(_tokens: Tokens, body: bytes) -> Request:
    shape = objects.MACHINE_CONFIG_UPDATE
    update = cast("c.MachineConfigUpdate", _load(shape, body))
    if update == c.MachineConfigUpdate():
        raise ApiFault(_EMPTY["PATCH"])
    old = _old_template("PATCH", update.cpu_template is not None)
    return Request(a.PatchMachineConfig(update), old)


def _old_template(method: str, given: bool) -> str | None:
    text = f"{method} /machine-config: cpu_template field is deprecated."
    return text if given else None


def _put_vsock(_tokens: Tokens, body: bytes) -> Request:
    vsock = cast("c.VsockConfig", _load(objects.VSOCK, body))
    return Request(
        a.PutVsock(vsock), _OLD_VSOCK if vsock.vsock_id is not None else None
    )


def _put_mmds(tokens: Tokens, body: bytes) -> Request:
    match tokens[1:]:
        case ():
            return Request(a.PutMmds(cast("a.JsonValue", _load(objects.JSON, body))))
        case ("config", *_):
            mmds = cast("c.MmdsConfig", _load(objects.MMDS_CONFIG, body))
            old = _OLD_MMDS if mmds.version is c.MmdsVersion.V1 else None
            return Request(a.PutMmdsConfig(mmds), old)
        case other:
            raise ApiFault(f"Unrecognized PUT request path `{other[0]}`.")


def _put_actions(_tokens: Tokens, body: bytes) -> Request:
    asked = cast("b.ActionBody", _load(objects.ACTION_BODY, body))
    return Request(_ACTIONS[asked.action_type])


_ACTIONS: dict[c.ActionType, a.Action] = {
    c.ActionType.FLUSH_METRICS: a.FlushMetrics(),
    c.ActionType.INSTANCE_START: a.InstanceStart(),
    c.ActionType.SEND_CTRL_ALT_DEL: a.SendCtrlAltDel(),
}


def _patch_vm(_tokens: Tokens, body: bytes) -> Request:
    return Request(a.PatchVm(cast("b.VmUpdate", _load(objects.VM_UPDATE, body)).state))


def _put_snapshot(tokens: Tokens, body: bytes) -> Request:
    match tokens[1:]:
        case ():
            raise ApiFault("Missing snapshot operation type.")
        case ("create", *_):
            return _create_snapshot(body)
        case ("load", *_):
            given = cast("b.SnapshotLoadConfig", _load(objects.SNAPSHOT_LOAD, body))
            return _load_snapshot(given)
        case other:
            raise _no_route("PUT", f"/snapshot/{other[0]}")


def _create_snapshot(body: bytes) -> Request:
    params = cast("p.SnapshotCreateParams", _load(objects.SNAPSHOT_CREATE, body))
    old = None if params.version is None else _OLD_CREATE
    return Request(a.CreateSnapshot(params), old)


def _get_vmmd(tokens: Tokens, _body: bytes) -> Request:
    match tokens[1:]:
        case ("state", *_):
            return Request(a.GetState())
        case ("snapshot", "targets"):
            return Request(a.GetSnapshotTargets())
        case ("snapshot", "progress"):
            return Request(a.GetSnapshotProgress())
        case _:
            raise _no_route("GET", tokens[0])


def _put_vmmd(tokens: Tokens, body: bytes) -> Request:
    match tokens[1:]:
        case ("snapshot", "load"):
            loaded = _load(objects.VMMD_SNAPSHOT_LOAD, body)
            given = cast("b.VmmdSnapshotLoadConfig", loaded)
            return _load_snapshot(given, given.drive_overrides)
        case other:
            raise _no_route("PUT", "/".join(("/vmmd", *other)))


def _load_snapshot(
    given: b.SnapshotLoadConfig, drives: tuple[p.DriveOverride, ...] = ()
) -> Request:
    backend, path = given.mem_backend, given.mem_file_path
    if backend is not None and path is not None:
        raise _serde_fault(SerdeFault(_TWO_BACKENDS))
    if backend is None:
        if path is None:
            raise _serde_fault(SerdeFault(_MISSING_BACKEND))
        backend = p.MemBackendConfig(path, p.MemBackendType.FILE)
    params = p.SnapshotLoadParams(
        given.snapshot_path,
        backend,
        given.enable_diff_snapshots or given.track_dirty_pages,
        given.resume_vm,
        given.network_overrides,
        given.vsock_override,
        given.clock_realtime,
        drives,
    )
    old = path is not None or given.enable_diff_snapshots
    return Request(a.LoadSnapshot(params), _OLD_LOAD if old else None)


_ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", ""): _plain(a.GetInstanceInfo()),
    ("GET", "balloon"): _get_balloon,
    ("GET", "version"): _plain(a.GetVersion()),
    ("GET", "vm"): _second("GET", "config", _plain(a.GetVmConfig())),
    ("GET", "vmmd"): _get_vmmd,
    ("GET", "machine-config"): _plain(a.GetMachineConfig()),
    ("GET", "mmds"): _plain(a.GetMmds()),
    ("GET", "hotplug"): _second("GET", "memory", _plain(a.GetMemoryHotplug())),
    ("PUT", "actions"): _put_actions,
    ("PUT", "balloon"): _body(a.PutBalloon, objects.BALLOON),
    ("PUT", "boot-source"): _body(a.PutBootSource, objects.BOOT_SOURCE),
    ("PUT", "cpu-config"): _body(a.PutCpuConfig, objects.CPU_TEMPLATE),
    ("PUT", "drives"): _named(a.PutDrive, objects.DRIVE, "drive_id"),
    ("PUT", "pmem"): _named(a.PutPmem, objects.PMEM, "id"),
    ("PUT", "logger"): _body(a.PutLogger, objects.LOGGER),
    ("PUT", "serial"): _body(a.PutSerial, objects.SERIAL),
    ("PUT", "machine-config"): _put_machine_config,
    ("PUT", "metrics"): _body(a.PutMetrics, objects.METRICS),
    ("PUT", "mmds"): _put_mmds,
    ("PUT", "network-interfaces"): _named(
        a.PutNetworkInterface, objects.NETWORK_INTERFACE, "iface_id"
    ),
    ("PUT", "snapshot"): _put_snapshot,
    ("PUT", "vmmd"): _put_vmmd,
    ("PUT", "vsock"): _put_vsock,
    ("PUT", "entropy"): _body(a.PutEntropy, objects.ENTROPY),
    ("PUT", "hotplug"): _second(
        "PUT", "memory", _body(a.PutMemoryHotplug, objects.MEMORY_HOTPLUG)
    ),
    ("PATCH", "drives"): _named(a.PatchDrive, objects.DRIVE_UPDATE, "drive_id"),
    ("PATCH", "machine-config"): _patch_machine_config,
    ("PATCH", "mmds"): _body(a.PatchMmds, objects.JSON),
    ("PATCH", "network-interfaces"): _named(
        a.PatchNetworkInterface, objects.NETWORK_INTERFACE_UPDATE, "iface_id"
    ),
    ("PATCH", "pmem"): _named(a.PatchPmem, objects.PMEM_UPDATE, "id"),
    ("PATCH", "vm"): _patch_vm,
    ("PATCH", "hotplug"): _second(
        "PATCH", "memory", _body(a.PatchMemoryHotplug, objects.MEMORY_HOTPLUG_UPDATE)
    ),
    ("DELETE", "drives"): _delete(a.DeviceKind.DRIVE),
    ("DELETE", "pmem"): _delete(a.DeviceKind.PMEM),
    ("DELETE", "network-interfaces"): _delete(a.DeviceKind.NET),
}
