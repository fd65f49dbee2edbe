"""Fixtures of this folder: one stack with its API, shared by all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_rig import Api

from tokenbill import stack


@pytest.fixture(scope="session")
def whole_api() -> Iterator[Api]:
    folder = Path(tempfile.mkdtemp(prefix="tokenbill-api-"))
    os.environ["TOKENBILL_NOTIFY_NETWORKS"] = "127.0.0.0/8"  # gateways of the tests listen on loopback
    api = Api(folder)
    try:
        api.start()
        yield api
    finally:
        api.close()
        stack.remove(folder)


@pytest.fixture
def api(whole_api: Api) -> Api:
    """The stack with its running API."""
    return whole_api


@pytest.fixture
def admin(whole_api: Api) -> httpx.Client:
    """A client with the role ``admin``."""
    return whole_api.clients["admin"]


@pytest.fixture
def nobody(whole_api: Api) -> httpx.Client:
    """A client without a key."""
    return whole_api.clients["nobody"]
