"""The sdist builds a wheel, and the wheel runs without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _built(kind: str, source: Path, out: Path) -> Path:
    """What setuptools' backend makes of ``source``."""
    code = (
        "from setuptools.build_meta import build_sdist, build_wheel; import sys; "
        f"print(build_{kind}(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, in folders of its own."""
    base = tmp_path_factory.mktemp("packaging")
    copy = base / "checkout"
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    sdist = _built("sdist", copy, base)
    subprocess.run(["tar", "xf", str(sdist)], cwd=base, check=True)
    return _built("wheel", base / sdist.name.removesuffix(".tar.gz"), base)


def test_the_wheel_is_for_every_python_from_3_11_on(wheel: Path) -> None:
    assert "-cp311-abi3-linux_x86_64" in wheel.name


def test_the_wheel_runs_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    assert {"vmmd/_native.abi3.so", "vmmd/py.typed", "vmmd/_native.pyi"} <= set(names)
    assert "vmmd/virtio/ring.h" in names
    assert not [name for name in names if name.startswith(("tests/", "lab/", "bench/"))]
    code = "import sys; from vmmd.__main__ import firecracker; sys.exit(firecracker())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("Firecracker v"), done.stderr
    code = "import vmmd._native as n; print(n.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith(str(tmp_path))
