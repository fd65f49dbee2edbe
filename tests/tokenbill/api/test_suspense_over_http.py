"""Rejected usage over HTTP: listed in pages, shown with its bytes, and limited to the account of the key."""

from __future__ import annotations

import base64
from typing import Any

from api_rig import Api, check_problem, until
from click.testing import CliRunner
from confluent_kafka import Producer
from test_usage_over_http import STRUCTURED, event

from schemas.topics import USAGE_TOPIC
from tokenbill.api.http.pages import write_cursor
from tokenbill.commands.suspense import suspense
from tokenbill.commands.webhook import webhook
from tokenbill.user_errors import UserError


def rows(api: Api, account: str, **asked: Any) -> list[dict[str, Any]]:
    found = api.clients["read"].get("/v1/suspense", params={"account": account, **asked})
    assert found.status_code == 200, found.text
    items: list[dict[str, Any]] = found.json()["items"]
    return items


def test_usage_of_an_unknown_account_is_listed_and_shown(api: Api) -> None:
    account = api.name("nobody")
    sent = [event(account, number) for number in (1, 2, 3)]
    for one in sent:
        answer = api.clients["admin"].post("/v1/usage", json=one, headers=STRUCTURED)
        assert answer.status_code == 202, answer.text
    until(lambda: len(rows(api, account)) == 3)
    client, seen, cursor = api.clients["read"], [], None
    while True:
        asked = {"account": account, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/suspense", params=asked).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [one["id"] for one in seen] == ["e-1", "e-2", "e-3"]
    assert {(one["reason"], one["state"], one["sent_to"]) for one in seen} == {("unknown_account", "open", None)}
    assert rows(api, account, reason="no_price") == []
    assert len(rows(api, account, resolved="true")) == 3
    whole = client.get(f"/v1/suspense/{seen[0]['place']}").json()
    assert {name: whole[name] for name in seen[0]} == seen[0]
    assert (whole["sequence"], whole["key"]) == (1, {"text": account})
    assert '"e-1"' in whole["value"]["text"]
    assert set(whole["advice"]) == {"zh", "en"}
    with api.client(api.key("read", account)) as own, api.client(api.key("read", api.name("other"))) as other:
        assert len(own.get("/v1/suspense").json()["items"]) == 3
        assert other.get("/v1/suspense").json()["items"] == []
        check_problem(other.get("/v1/suspense", params={"account": account}), 403, "other_account")
        check_problem(other.get(f"/v1/suspense/{seen[0]['place']}"), 403, "other_account")


def test_bytes_that_are_no_text_come_as_base64(api: Api) -> None:
    offsets: list[int | None] = []
    producer = Producer({"bootstrap.servers": api.kafka})
    producer.produce(
        USAGE_TOPIC, b"\xff\x00", None, 0, on_delivery=lambda _, message: offsets.append(message.offset()), headers=[]
    )
    assert producer.flush(60) == 0
    address = f"/v1/suspense/{USAGE_TOPIC}/0/{offsets[0]}"
    until(lambda: api.clients["read"].get(address).status_code == 200)
    found = api.clients["read"].get(address).json()
    assert base64.b64decode(found["value"]["base64"]) == b"\xff\x00"
    assert (found["key"], found["account"], found["headers"]) == (None, None, [])
    with api.client(api.key("read", api.name("own"))) as own:
        check_problem(own.get(address), 403, "other_account")


def test_what_cannot_be_asked_is_a_problem(api: Api) -> None:
    client = api.clients["read"]
    check_problem(client.get("/v1/suspense/usage.events/0/999999999"), 404, "unknown_suspense")
    check_problem(client.get("/v1/suspense/usage.events/0/-1"), 400, "invalid_request")
    check_problem(client.get("/v1/suspense", params={"reason": "bad_luck"}), 400, "invalid_request")
    check_problem(client.get("/v1/suspense", params={"cursor": write_cursor("1/2")}), 422, "invalid_cursor")


def test_the_command_refuses_what_can_have_no_rows(api: Api) -> None:
    def refused(*arguments: str) -> str:
        outcome = CliRunner().invoke(suspense, [*arguments, "--data-dir", str(api.folder)])
        assert isinstance(outcome.exception, UserError) and outcome.stdout == ""
        return str(outcome.exception)

    account = api.name("nobody")
    for command in (["list", "--all"], ["resubmit"]):
        assert f"There is no account '{account}'" in refused(*command, "--account", account)
    times = ["--from", "2026-11-02T00:00:00Z", "--to", "2026-11-01T00:00:00Z"]
    assert "The time range is empty" in refused("list", *times)
    outcome = CliRunner().invoke(webhook, ["deliveries", "--webhook", "none", "--data-dir", str(api.folder)])
    assert isinstance(outcome.exception, UserError) and "There is no webhook 'none'" in str(outcome.exception)
    answer = api.clients["admin"].post("/v1/usage", json=event(account, 1), headers=STRUCTURED)
    assert answer.status_code == 202, answer.text
    until(lambda: len(rows(api, account)) == 1)
    listed = CliRunner().invoke(suspense, ["list", "--account", account, "--data-dir", str(api.folder)])
    assert listed.exit_code == 0 and account in listed.stdout
