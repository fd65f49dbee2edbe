"""Access rules: only health pages without a key, each role its own rights, a bound key its own account."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from api_rig import Api, check_problem
from click.testing import CliRunner

from billing.store.api.keys import create_key, list_keys
from billing.store.database import Database
from tokenbill.api.http.auth import KEYS_REMEMBERED_SECONDS
from tokenbill.cli import cli


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(nobody: httpx.Client, path: str) -> None:
    answer = nobody.get(path)
    stopped = {"stopped_partitions": []} if path == "/readyz" else {}
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"} | stopped)


@pytest.mark.parametrize("path", ["/v1/accounts", "/openapi.json", "/", "/nowhere", "/docs", "/healthz/"])
def test_nothing_else_is_there_without_a_key(nobody: httpx.Client, path: str) -> None:
    answer = nobody.get(path)
    check_problem(answer, 401, "key_required")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_that_is_not_in_force_is_refused(api: Api) -> None:
    token = api.tokens["read"]
    with closing(Database(api.database_url, 1)) as database:
        _, expired = create_key(database, "old", "admin", None, datetime.now(UTC) - timedelta(seconds=1))
    wrong = [token[:-1] + ("A" if token[-1] != "A" else "B"), "tbk_0_x", "x", "tbk_", expired, token.replace("_", "-")]
    for one in wrong:
        with api.client(one) as client:
            check_problem(client.get("/v1/accounts"), 401, "key_unknown")
    answer = httpx.get(f"{api.url}/v1/accounts", headers={"authorization": f"Basic {token}"})
    check_problem(answer, 401, "key_unknown")


def test_a_revoked_key_is_refused_within_seconds(api: Api) -> None:
    run = CliRunner()
    made = run.invoke(cli, ["api-key", "create", "shop", "--role", "read", "--json", "--data-dir", str(api.folder)])
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    with api.client(document["token"]) as client:
        assert client.get("/v1/accounts").status_code == 200
        done = run.invoke(cli, ["api-key", "revoke", document["key_id"], "--data-dir", str(api.folder)])
        assert done.exit_code == 0, done.output
        time.sleep(KEYS_REMEMBERED_SECONDS + 0.2)
        check_problem(client.get("/v1/accounts"), 401, "key_unknown")
    listed = run.invoke(cli, ["api-key", "list", "--json", "--data-dir", str(api.folder)])
    mine = [one for one in json.loads(listed.stdout) if one["key_id"] == document["key_id"]]
    assert mine[0]["revoked"] is not None
    assert document["token"].rpartition("_")[2] not in listed.stdout


def test_a_secret_is_not_stored(api: Api) -> None:
    with closing(Database(api.database_url, 1)) as database:
        assert all(len(key.secret_sha256) == 32 for key in list_keys(database))


def test_errors_of_routing_are_problems(admin: httpx.Client) -> None:
    check_problem(admin.get("/v1/nothing"), 404, "not_found")
    check_problem(admin.delete("/v1/accounts"), 405, "method_not_allowed")
    check_problem(admin.get("/v1/accounts", params={"limit": 0}), 400, "invalid_request")
    check_problem(admin.get("/v1/accounts", params={"cursor": "!"}), 422, "invalid_cursor")
    check_problem(admin.get("/v1/accounts/nobody-opened-this"), 404, "unknown_account")
    check_problem(admin.get("/v1/accounts/" + "x" * 300), 400, "invalid_request")
