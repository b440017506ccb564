"""Hypothesis profiles, the tier of each test, and no skips in CI."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=200, deadline=None, derandomize=bool(os.environ.get("CI"))
)
settings.register_profile(
    "long",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("VMMD_HYPOTHESIS", "default"))

_TIERS = ("loop", "kvm", "lab")
_FOLDERS = {"e2e": "loop"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's tier is its folder, so that none can forget its marker."""
    for item in items:
        parts = item.path.parts
        for tier in _TIERS:
            if tier in parts or any(_FOLDERS.get(part) == tier for part in parts):
                item.add_marker(getattr(pytest.mark, tier))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure: what cannot run must not look like a pass."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in CI: {report.longrepr}"
    return report
