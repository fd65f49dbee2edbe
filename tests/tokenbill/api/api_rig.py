"""A complete stack with its HTTP API under test, and a client for every role."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from billing.catalog import load_folder
from billing.store.api.keys import ROLES, create_key
from billing.store.database import Database
from billing.store.store import Store
from tokenbill import stack

PARTITIONS = 2
EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "catalog"
PROBLEM = "application/problem+json"


@dataclass
class Api:
    """A running stack with the example catalogue. Tests share it, and each uses accounts with names of its own."""

    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)
    clients: dict[str, httpx.Client] = field(default_factory=dict)
    made: int = 0

    def start(self) -> None:
        self.info = stack.start(self.folder, workers=1, partitions=PARTITIONS)
        assert self.info.database_url is not None and self.info.api is not None and self.info.kafka is not None
        self.database_url, self.url, self.kafka = self.info.database_url, self.info.api, self.info.kafka
        with Store(self.database_url) as store:
            done = store.publish(load_folder(EXAMPLES))
            assert store.wait_for_workers(done.epoch, 60) == []
        for role in ROLES:
            self.tokens[role] = self.key(role)
        for role, token in [*self.tokens.items(), ("nobody", "")]:
            self.clients[role] = self.client(token)

    def key(self, role: str, account: str | None = None, *sources: str) -> str:
        """Return the token of a new key."""
        with closing(Database(self.database_url, 1)) as database:
            return create_key(database, f"test {role}", role, account, None, sources)[1]

    def client(self, token: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def name(self, what: str = "a") -> str:
        """Return a name that no other test uses."""
        self.made += 1
        return f"{what}-{os.getpid()}-{time.time_ns() // 1000}-{self.made}"

    def kill(self) -> None:
        """Kill the API with SIGKILL. Returns when a new process serves at the same address."""
        before = stack.info(self.folder).pids["api"]
        os.kill(before, signal.SIGKILL)
        until(lambda: stack.info(self.folder).pids.get("api", before) != before and self.serves())

    def serves(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


def until(ready: Any, seconds: float = 60.0, every: float = 0.1) -> None:
    """Wait until ``ready()`` is true."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(every)


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is a problem document of this status and code, and return the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = json.loads(answer.content)
    assert body["code"] == code
    assert body["type"] == f"urn:tokenbill:problem:{code}"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"] and body["detail"]
    return body
