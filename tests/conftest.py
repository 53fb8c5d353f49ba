"""What holds for all tests: which may run side by side, and which skips are allowed.

Files run side by side (``-n``), but for those that share the checkout's built flights: they are one group. Skips are
counted and named everywhere; under `.ci/run` one that is not listed in skips.toml is a failure.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from fairlead.features import light_feast

HERE = Path(__file__).parent
SKIPS = HERE / "skips.toml"
SHARING_FLIGHTS = {"docs", "examples", "feature_repo"}
"""Folders whose tests build, read or train in the checkout's own feature repository."""


class SkipGuard:
    """Collects skipped tests and fails the session over those that nobody has listed."""

    def __init__(self, allowed: dict[str, str]) -> None:
        self._allowed = allowed
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._skipped[report.nodeid] = reason

    def unlisted(self) -> dict[str, str]:
        return {test: why for test, why in self._skipped.items() if not any(test.startswith(a) for a in self._allowed)}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unlisted() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, why in self.unlisted().items():
            terminalreporter.line(f"skipped but not listed in tests/skips.toml: {test}: {why}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    light_feast.install()  # whole Feast takes 7 s of each process to import
    # How long an example takes is the machine's business; `.ci/run` tries the same examples every time.
    ci = bool(os.environ.get("FAIRLEAD_CI"))
    settings.register_profile(
        "fairlead", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=ci, print_blob=True
    )
    settings.load_profile("fairlead")
    if os.environ.get("FAIRLEAD_CI"):
        allowed: dict[str, str] = tomllib.loads(SKIPS.read_text())["allowed"]
        config.pluginmanager.register(SkipGuard(allowed), "skip-guard")


class FlightsTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each file to one worker, and all files that share the checkout's flights to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        return "flights" if PurePosixPath(file).parts[1] in SHARING_FLIGHTS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FlightsTogether:
    return FlightsTogether(config, log)
