"""The rules of the layers, read from the source: imports, capabilities, C budget."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vmmd"
C_BUDGET_LINES = 2500

# Lower may not import higher. `_native` and `state.record` stand at the foot.
RANKS = {
    "__version__": 0,
    "FIRECRACKER_VERSION": 0,
    "errors": 0,
    "rust": 0,
    "frozen": 0,
    "_native": 0,
    "memory": 1,
    "state": 1,
    "bus": 2,
    "config": 2,
    "snapshot_params": 2,
    "limiter": 2,
    "templates": 2,
    "boot": 2,
    "cpu": 2,
    "chips": 2,
    "virtio": 2,
    "mmds": 2,
    "actions": 3,
    "lifecycle": 3,
    "resources": 3,
    "machine": 3,
    "metrics": 3,
    "vm_info": 3,
    "saved": 3,
    "snapshot_view": 3,
    "http": 3,
    "loop": 4,
    "client": 5,
    "cli": 5,
    "__main__": 6,
}
LOOP_ONLY = {"trio", "socket", "_socket", "threading", "signal", "fcntl", "mmap"}
OUTER = ("loop", "cli", "client", "__main__")
ONLY_IN = {"h11": ("http",), "msgpack": ("state",)}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The name in RANKS that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions, typing ones too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                found.add(module)
                if module == "vmmd":
                    found.update(f"vmmd.{alias.name}" for alias in names)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert not imports(path)
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "vmmd" and len(parts) > 1 and parts[1] != here:
            assert RANKS[parts[1]] <= RANKS[here], f"{here} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_capabilities_stay_in_their_rooms(path: Path) -> None:
    here, used = room(path), {name.split(".")[0] for name in imports(path)}
    if here not in OUTER:
        assert not used & LOOP_ONLY
        assert not _opens_files(path)
    for module, rooms in ONLY_IN.items():
        assert module not in used or here in rooms, f"{here} imports {module}"
    assert "cffi" not in used


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_only_the_loop_is_async(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text()))
    if room(path) not in ("loop", "client"):
        assert not [
            node.name for node in tree if isinstance(node, ast.AsyncFunctionDef)
        ]


def test_http_and_state_never_see_a_device() -> None:
    for path in SOURCES:
        if room(path) in ("http", "state"):
            for module in imports(path):
                assert not module.startswith(("vmmd.virtio", "vmmd.chips", "vmmd.cpu"))


def test_c_stays_within_its_budget() -> None:
    lines = sum(
        len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.c")
        if path.name != "_native.c"
    )
    assert lines <= C_BUDGET_LINES


def _opens_files(path: Path) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "open")
            or (
                isinstance(node.func, ast.Attribute)
                and node.func.attr == "open"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "os"
            )
        )
    ]
