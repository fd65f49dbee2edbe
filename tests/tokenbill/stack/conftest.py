"""Fixture of the stack tests: a data folder of its own for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack_scripts import Scripts

from tokenbill.stack import stop
from tokenbill.stack.config import StackConfig
from tokenbill.stack.layout import Layout


@pytest.fixture
def scripts() -> Iterator[Scripts]:
    folder = Path(tempfile.mkdtemp(prefix="tokenbill-scripts-"))
    layout = Layout.of(folder)
    layout.create()
    StackConfig.new().save(layout)
    yield Scripts(layout)
    stop(folder)
    shutil.rmtree(folder)
