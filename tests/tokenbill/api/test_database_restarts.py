"""A restart of the database breaks every idle connection of the API. Requests after it are answered as before it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from api_rig import Api, until
from api_steps import opened, order

from tokenbill import stack

AT_ONCE = 16
"""Number of requests at the same time, more than the API has connections."""


def answers(api: Api) -> bool:
    assert api.info.admin_database_url is not None
    try:
        psycopg.connect(api.info.admin_database_url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def restart(api: Api) -> None:
    """Stop PostgreSQL as an operator does; the supervisor starts it again."""
    before = stack.info(api.folder).pids["postgresql"]
    os.kill(before, signal.SIGINT)
    until(lambda: stack.info(api.folder).pids.get("postgresql", before) != before and answers(api))


def end_connections(api: Api) -> None:
    """End the connections of the API, as a proxy or an administrator does."""
    assert api.info.admin_database_url is not None
    with psycopg.connect(api.info.admin_database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name IN ('tokenbill api', 'tokenbill holds', 'tokenbill looks for holds')"
        ).fetchone()
    assert ended is not None and ended[0] >= 8


@pytest.mark.parametrize("breaks", [end_connections, restart])
def test_requests_after_it_are_answered(api: Api, admin: httpx.Client, breaks: Callable[[Api], None]) -> None:
    account = opened(api, "broken", "100")
    held = {"account": account, "model": "deepseek-v3.2", "usage": {"output": 10}}
    until(lambda: admin.post("/v1/reservations", json=held).status_code == 201)
    breaks(api)

    def ask(number: int) -> int:
        with api.client(api.tokens["admin"]) as client:
            body = {"amount": "1", "payment_ref": f"after-{number}"}
            return [
                lambda: client.get(f"/v1/accounts/{account}"),
                lambda: client.get("/v1/plans"),
                lambda: client.post("/v1/reservations", json=held),
                lambda: order(client, f"/v1/accounts/{account}/top-ups", body, api.name("key"), prefer="wait=0"),
            ][number % 4]().status_code

    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(ask, range(AT_ONCE)))
    assert statuses == [200, 200, 201, 202] * (AT_ONCE // 4)
