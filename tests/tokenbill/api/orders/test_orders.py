"""Commands over HTTP: executed once per idempotency key, refused with the rule's own code, and found again later."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest
from api_rig import Api, check_problem, until
from api_steps import opened, order


def wallet(api: Api, account: str) -> str:
    return str(api.clients["read"].get(f"/v1/accounts/{account}/balance").json()["wallet"])


def test_an_account_is_opened_and_read(api: Api) -> None:
    account = opened(api, top_up="5.50")
    answer = api.clients["read"].get(f"/v1/accounts/{account}")
    assert answer.json() == {
        "account": account,
        "status": "open",
        "currency": "CNY",
        "price_book": "retail-cn",
        "payment": "prepaid",
        "credit_limit": "0",
        "wallet": "5.5",
        "absorbed": "0",
        "absorbed_amount": "0",
    }


def test_a_purchase_grants_buckets(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    body = {"plan": "token-9.9", "grant_id": "g", "starts_at": "2026-11-01T00:00:00+08:00"}
    answer = order(admin, f"/v1/accounts/{account}/purchases", body, f"buy-{account}")
    assert answer.status_code == 201
    assert answer.json()["outcome"] == "accepted"
    [bucket] = admin.get(f"/v1/accounts/{account}/balance").json()["buckets"]
    assert (bucket["grant_id"], bucket["amount"], bucket["valid_from"]) == ("g/1", "10000000", "2026-10-31T16:00:00Z")


def test_the_same_key_and_body_is_done_once_and_answered_alike(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    path, body = f"/v1/accounts/{account}/top-ups", {"amount": "3", "payment_ref": "p"}
    first, second = (order(admin, path, body, f"k-{account}") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert wallet(api, account) == "3"


def test_the_same_key_with_another_body_is_refused(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    path = f"/v1/accounts/{account}/top-ups"
    assert order(admin, path, {"amount": "3", "payment_ref": "p"}, f"k-{account}").status_code == 201
    answer = order(admin, path, {"amount": "4", "payment_ref": "p"}, f"k-{account}")
    check_problem(answer, 422, "idempotency_key_reused")
    assert wallet(api, account) == "3"


def test_keys_of_two_callers_are_apart(api: Api) -> None:
    account = opened(api)
    path = f"/v1/accounts/{account}/top-ups"
    for role, reference in (("admin", "p1"), ("operator", "p2")):
        body = {"amount": "1", "payment_ref": reference}
        assert order(api.clients[role], path, body, f"k-{account}").status_code == 201
    assert wallet(api, account) == "2"


def test_requests_with_one_key_at_once_are_one(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    path, body = f"/v1/accounts/{account}/top-ups", {"amount": "3", "payment_ref": "p"}
    answers: list[httpx.Response] = []

    def ask() -> None:
        with api.client(api.tokens["admin"]) as client:
            answers.append(order(client, path, body, f"k-{account}"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 6
    assert wallet(api, account) == "3"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("purchases", {"plan": "never-published", "grant_id": "g"}, 404, "unknown_plan"),
        ("purchases", {"plan": "token-9.9", "grant_id": "g", "pay_from": "wallet"}, 409, "insufficient_funds"),
        ("commands", {"type": "account.opened.v1", "data": {"currency": "CNY"}}, 409, "account_exists"),
        ("top-ups", {"amount": "0", "payment_ref": "p"}, 422, "invalid_command"),
        ("top-ups", {"amount": "1e3", "payment_ref": "p"}, 422, "invalid_command"),
        ("top-ups", {"amount": 3, "payment_ref": "p"}, 422, "invalid_command"),
        ("top-ups", {"amount": "3", "payment_ref": "p", "gfit": True}, 400, "invalid_request"),
        ("commands", {"type": "wallet.emptied.v1", "data": {}}, 400, "invalid_request"),
        ("commands", {"type": "wallet.topped_up.v1"}, 400, "invalid_request"),
    ],
)
def test_what_a_rule_or_the_form_refuses_has_its_own_code(
    api: Api, admin: httpx.Client, path: str, body: Any, status: int, code: str
) -> None:
    account = opened(api)
    answers = [order(admin, f"/v1/accounts/{account}/{path}", body, f"k-{account}") for _ in range(2)]
    first, second = (check_problem(answer, status, code) for answer in answers)
    assert first | {"request_id": ""} == second | {"request_id": ""}
    assert wallet(api, account) == "0"


def test_unknown_and_closed_accounts_have_their_codes(api: Api, admin: httpx.Client) -> None:
    body = {"amount": "1", "payment_ref": "p"}
    unknown = api.name("never")
    check_problem(order(admin, f"/v1/accounts/{unknown}/top-ups", body, unknown), 404, "unknown_account")
    account = opened(api)
    closing = {"type": "account.closed.v1", "data": {"reason": "moved"}}
    assert order(admin, f"/v1/accounts/{account}/commands", closing, f"close-{account}").status_code == 201
    check_problem(order(admin, f"/v1/accounts/{account}/top-ups", body, account), 409, "account_closed")
    assert admin.get(f"/v1/accounts/{account}").json()["status"] == "closed"


def test_bodies_and_headers_that_cannot_be_read(api: Api, admin: httpx.Client) -> None:
    path = f"/v1/accounts/{opened(api)}/top-ups"
    json_type = {"content-type": "application/json"}
    key = {"idempotency-key": api.name("k")}
    check_problem(admin.post(path, json={}), 400, "idempotency_key_required")
    check_problem(admin.post(path, json={}, headers={"idempotency-key": "two words"}), 400, "invalid_request")
    check_problem(admin.post(path, content=b"amount=3", headers=key), 415, "unsupported_media_type")
    for broken in (b"{", b"[]", b'{"amount":"1","amount":"2"}', b"\xff", b""):
        check_problem(admin.post(path, content=broken, headers=key | json_type), 400, "invalid_request")
    half = b'{"amount":"1","payment_ref":"\\ud800"}'
    check_problem(admin.post(path, content=half, headers=key | json_type), 422, "invalid_data")
    check_problem(admin.post(path, content=b" " * (5 << 20), headers=key | json_type), 413, "too_large")


def test_a_caller_who_does_not_wait_looks_later(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    body, key = {"amount": "3", "payment_ref": "p"}, f"k-{account}"
    answer = order(admin, f"/v1/accounts/{account}/top-ups", body, key, prefer="wait=0")
    assert (answer.status_code, answer.json()["outcome"]) == (202, "pending")
    until(lambda: admin.get(answer.headers["location"]).json()["outcome"] == "accepted")
    assert wallet(api, account) == "3"
    check_problem(api.clients["operator"].get(answer.headers["location"]), 404, "unknown_command")


def test_a_killed_api_does_a_repeated_top_up_once(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    path = f"/v1/accounts/{account}/top-ups"
    broken = 0
    for number in range(4):
        body = {"amount": "1", "payment_ref": f"p{number}"}
        outcome: list[httpx.Response | httpx.HTTPError] = []

        def ask(number: int = number, body: dict[str, str] = body, outcome: list[Any] = outcome) -> None:
            try:
                with api.client(api.tokens["admin"]) as client:
                    outcome.append(order(client, path, body, f"k{number}-{account}"))
            except httpx.HTTPError as error:
                outcome.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.004 * (1 + 3 * number))
        api.kill()
        thread.join()
        broken += isinstance(outcome[0], httpx.HTTPError)
        for _ in range(2):
            assert order(admin, path, body, f"k{number}-{account}").status_code == 201
    assert broken, "no kill came in the middle of a request"
    assert wallet(api, account) == "4"


def test_a_refusal_that_nobody_waited_for_is_found_after_a_kill(api: Api, admin: httpx.Client) -> None:
    account = opened(api)
    body, key = {"plan": "never-published", "grant_id": "g"}, f"k-{account}"
    assert order(admin, f"/v1/accounts/{account}/purchases", body, key, prefer="wait=0").status_code == 202
    api.kill()
    until(lambda: admin.get(f"/v1/commands/{key}").json()["outcome"] == "rejected")
    answer = order(admin, f"/v1/accounts/{account}/purchases", body, key)
    check_problem(answer, 404, "unknown_plan")
    assert answer.headers["idempotent-replayed"] == "true"


def test_accounts_come_in_pages(api: Api) -> None:
    client = api.clients["read"]
    mine = {opened(api, "page") for _ in range(5)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.get("/v1/accounts", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        seen += [one["account"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(set(seen))
    assert mine <= set(seen)


def test_a_key_for_one_account_sees_and_changes_only_that(api: Api) -> None:
    account, other = opened(api), opened(api)
    with api.client(api.key("operator", account)) as client:
        assert client.get(f"/v1/accounts/{account}/balance").status_code == 200
        assert [one["account"] for one in client.get("/v1/accounts").json()["items"]] == [account]
        check_problem(client.get(f"/v1/accounts/{other}"), 403, "other_account")
        body = {"amount": "1", "payment_ref": "p"}
        check_problem(order(client, f"/v1/accounts/{other}/top-ups", body, "k"), 403, "other_account")
        assert order(client, f"/v1/accounts/{account}/top-ups", body, "k").status_code == 201
