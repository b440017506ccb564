"""The lab tier: stock Linux guests. It runs inside the lab host, in one session."""

from __future__ import annotations

import os

import pytest

from lab.images import Images, images


@pytest.fixture(scope="session", autouse=True)
def in_the_lab() -> None:
    """Outside of the lab the tier fails: a skip would look like a pass."""
    if os.environ.get("VMMD_LAB") != "1":
        pytest.fail(
            "tests/lab runs inside the emulated KVM host: use `make test-lab`, or "
            "lab/run --images -- .venv/bin/python -m pytest -m lab tests/lab",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def guest_images() -> Images:
    """The kernels, initramfs and root file system made before the lab started."""
    return images()
