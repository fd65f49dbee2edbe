"""Fixtures of the integration tests: one pipeline for all tests, which must recover after each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pipeline_rig import SESSION_SECONDS, Pipeline, Traffic, examples

from tokenbill import stack

WORKERS = 2


@pytest.fixture(scope="session")
def whole_pipeline() -> Iterator[Pipeline]:
    folder = Path(tempfile.mkdtemp(prefix="tokenbill-pipeline-"))
    # Supervisor and workers inherit it whenever they are restarted.
    os.environ["TOKENBILL_SESSION_TIMEOUT"] = str(SESSION_SECONDS)
    pipeline = Pipeline(folder)
    try:
        pipeline.start(WORKERS)
        pipeline.publish(examples())
        yield pipeline
    finally:
        del os.environ["TOKENBILL_SESSION_TIMEOUT"]
        stack.remove(folder)


@pytest.fixture
def pipeline(whole_pipeline: Pipeline) -> Pipeline:
    """Return the pipeline when it has two workers and every process is ready."""
    whole_pipeline.wait_serving(WORKERS)
    return whole_pipeline


@pytest.fixture
def traffic(pipeline: Pipeline, request: pytest.FixtureRequest) -> Iterator[Traffic]:
    """Yield traffic whose accounts are named after the test."""
    found = Traffic(pipeline, "".join(one if one.isalnum() else "-" for one in request.node.name[5:45]))
    yield found
    found.close()


@pytest.fixture
def make_traffic(pipeline: Pipeline) -> Iterator[Callable[..., Traffic]]:
    """Yield a function that creates further traffic with its own price book."""
    made: list[Traffic] = []

    def make(name: str, book: str) -> Traffic:
        made.append(Traffic(pipeline, name, book=book))
        return made[-1]

    yield make
    for one in made:
        one.close()
