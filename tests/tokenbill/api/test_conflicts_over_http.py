"""Conflicts over HTTP: listed in pages, shown with both contents, resolved, and limited to the account of the key."""

from __future__ import annotations

import json
from typing import Any

from api_rig import Api, check_problem, until
from test_usage_over_http import STRUCTURED, event, remaining, with_package


def send(api: Api, sent: dict[str, Any]) -> None:
    answer = api.clients["admin"].post("/v1/usage", content=json.dumps(sent), headers=STRUCTURED)
    assert answer.status_code == 202, answer.text


def rows(api: Api, account: str, **asked: Any) -> list[dict[str, Any]]:
    found = api.clients["read"].get("/v1/conflicts", params={"account": account, **asked})
    assert found.status_code == 200, found.text
    items: list[dict[str, Any]] = found.json()["items"]
    return items


def changed(sent: dict[str, Any], **data: Any) -> dict[str, Any]:
    return sent | {"data": sent["data"] | data}


def test_a_conflict_is_listed_shown_and_resolved(api: Api) -> None:
    account = with_package(api)
    first = event(account, 1)
    for sent in (first, changed(first, usage={"input": 2_000}), changed(first, site="elsewhere")):
        send(api, sent)
    until(lambda: len(rows(api, account)) == 2)
    counted, placed = rows(api, account)
    assert (counted["account"], counted["id"], counted["state"]) == (account, first["id"], "open")
    client = api.clients["read"]
    whole = client.get(f"/v1/conflicts/{counted['place']}").json()
    assert {name: whole[name] for name in counted} == counted
    assert whole["second"]["usage"] == {"input": 2_000}
    assert (whole["differs"], whole["first_unknown"]) == (["usage"], None)
    assert json.loads(whole["value"]["text"]) == changed(first, usage={"input": 2_000})
    assert whole["first"]["usage"]["usage"] != {"input": 2_000}

    correct = {"outcome": "correct", "reason": "measured again"}
    admin, path = api.clients["admin"], f"/v1/conflicts/{placed['place']}/resolution"
    check_problem(client.post(path, json=correct), 403, "role_not_enough")
    check_problem(admin.post(path, json=correct), 409, "nothing_to_correct")
    check_problem(admin.post(path, json=correct | {"outcome": "forget"}), 422, "invalid_data")
    check_problem(admin.post(path, json=correct | {"reason": ""}), 422, "invalid_data")
    check_problem(admin.post(path, json=correct | {"by": "x"}), 400, "invalid_request")
    kept = admin.post(path, json={"outcome": "keep", "reason": "the site is right"})
    assert (kept.status_code, kept.json()["state"], kept.json()["reason"]) == (200, "kept", "the site is right")
    check_problem(admin.post(path, json=correct), 409, "conflict_resolved")

    path = f"/v1/conflicts/{counted['place']}/resolution"
    answer = admin.post(path, json=correct)
    assert (answer.status_code, answer.json()["state"]) == (200, "correcting")
    until(lambda: remaining(api, account) == str(10_000_000 - 2_000))
    until(lambda: {one["state"] for one in rows(api, account, resolved="true")} == {"kept", "corrected"})
    assert rows(api, account) == []
    check_problem(admin.post(path, json=correct), 409, "conflict_resolved")


def test_a_key_of_one_account_sees_its_own_conflicts(api: Api) -> None:
    account = with_package(api)
    first = event(account, 1)
    for tokens in (1, 2, 3, 4):
        send(api, changed(first, usage={"input": tokens}))
    until(lambda: len(rows(api, account)) == 3)
    with api.client(api.key("read", account)) as own, api.client(api.key("read", api.name("other"))) as other:
        page = own.get("/v1/conflicts", params={"limit": 2}).json()
        rest = own.get("/v1/conflicts", params={"limit": 2, "cursor": page["next_cursor"]}).json()
        assert [one["place"] for one in page["items"] + rest["items"]] == [one["place"] for one in rows(api, account)]
        assert other.get("/v1/conflicts").json()["items"] == []
        check_problem(other.get("/v1/conflicts", params={"account": account}), 403, "other_account")
        check_problem(other.get(f"/v1/conflicts/{page['items'][0]['place']}"), 403, "other_account")
    check_problem(api.clients["read"].get("/v1/conflicts/usage.events/0/999999999"), 404, "unknown_conflict")
    check_problem(api.clients["read"].get("/v1/conflicts", params={"cursor": "x"}), 422, "invalid_cursor")
