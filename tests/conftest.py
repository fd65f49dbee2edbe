"""Fixtures for all tests: one Kafka and one PostgreSQL for the session, and the rule that no test is skipped.

Tests marked ``docker`` need a Docker engine. They are collected only with ``--docker``; a run without it reports how
many were left out.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tokenbill import stack

DOCKER_LEFT_OUT = pytest.StashKey[int]()


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses of empty servers. Each test makes its own database and its own topics on them."""

    kafka: str
    admin_database_url: str
    data_dir: Path


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Start one Kafka and one PostgreSQL for the session."""
    folder = Path(tempfile.mkdtemp(prefix="tokenbill-tests-"))
    try:
        running = stack.start(folder, only_servers=True)
        if running.kafka is None or running.admin_database_url is None:
            raise RuntimeError("the stack started without addresses")
        yield Servers(running.kafka, running.admin_database_url, folder)
    finally:
        gc.collect()  # A live Kafka client would log that it lost its broker, after pytest's summary.
        stack.remove(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--docker", action="store_true", help="also collect the tests that need a Docker engine")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DOCKER_LEFT_OUT] = 0
    config.pluginmanager.register(NothingIsSkipped(), "nothing-is-skipped")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--docker"):
        kept = [item for item in items if item.get_closest_marker("docker") is None]
        config.stash[DOCKER_LEFT_OUT] = len(items) - len(kept)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--docker"):
        left_out = config.stash[DOCKER_LEFT_OUT]
        terminalreporter.write_line(
            f"docker: {left_out} collected tests need a Docker engine and were left out; run them with --docker"
        )


class NothingIsSkipped:
    """Fails a session in which a test or a module was skipped, or was expected to fail."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped or hasattr(report, "wasxfail"):
            self._found.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._found.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self._found:
            terminalreporter.write_line(f"skipped or expected to fail, which fails this session: {name}", red=True)
