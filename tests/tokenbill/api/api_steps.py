"""Steps that tests of several routes share: order a command, open an account."""

from typing import Any

import httpx
from api_rig import Api


def order(client: httpx.Client, path: str, body: Any, key: str, **headers: str) -> httpx.Response:
    return client.post(path, json=body, headers={"idempotency-key": key, **headers})


def opened(api: Api, name: str = "a", top_up: str | None = None) -> str:
    """Open a new account, top up its wallet if ``top_up`` is given, and return its id."""
    account, client = api.name(name), api.clients["operator"]
    answer = order(client, "/v1/accounts", {"account": account, "currency": "CNY"}, f"open-{account}")
    assert answer.status_code == 201, answer.text
    if top_up is not None:
        body = {"amount": top_up, "payment_ref": "first"}
        assert order(client, f"/v1/accounts/{account}/top-ups", body, f"top-{account}").status_code == 201
    return account
