"""Usage over HTTP: recorded once Kafka has it, billed once even if it is resent, with a problem for each bad event."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from api_rig import Api, check_problem, until
from api_steps import opened, order
from click.testing import CliRunner, Result

from billing.catalog import load_folder
from billing.store.store import Store
from schemas.times import format_time_us
from tokenbill import stack
from tokenbill.cli import cli

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def event(account: str, number: int, **changes: Any) -> dict[str, Any]:
    body = {
        "specversion": "1.0",
        "type": "token.usage.v1",
        "source": f"urn:test:{account}",
        "id": f"e-{number}",
        "sequence": str(number),
        "time": format_time_us(time.time_ns() // 1000),
        "subject": account,
        "data": {"model": "deepseek-v3.2", "usage": {"input": 1000, "output": 20}},
    }
    return body | changes


def remaining(api: Api, account: str) -> str:
    [bucket] = api.clients["read"].get(f"/v1/accounts/{account}/balance").json()["buckets"]
    return str(bucket["remaining"])


def with_package(api: Api) -> str:
    account = opened(api)
    body = {"plan": "token-9.9", "grant_id": "g", "starts_at": format_time_us(time.time_ns() // 1000 - 3_600_000_000)}
    answer = order(api.clients["admin"], f"/v1/accounts/{account}/purchases", body, f"buy-{account}")
    assert answer.status_code == 201, answer.text
    return account


def test_ingested_usage_burns_the_package_once_however_it_is_sent(api: Api) -> None:
    account, client = with_package(api), api.clients["ingest"]
    one, two, three = (event(account, number) for number in (1, 2, 3))
    answer = client.post("/v1/usage", content=json.dumps(one), headers=STRUCTURED)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    answer = client.post("/v1/usage", content=json.dumps([one, two]), headers=BATCH)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    assert [result["warning"] for result in answer.json()["results"]] == [None, None]
    attributes = {f"ce-{name}": str(value) for name, value in three.items() if name != "data"}
    answer = client.post("/v1/usage", json=three["data"], headers=attributes)
    assert (answer.status_code, answer.json()["results"][0]["id"]) == (202, "e-3")
    until(lambda: remaining(api, account) == str(10_000_000 - 3 * 1030))
    answer = client.post("/v1/usage", content=json.dumps([one, two, three]), headers=BATCH)
    last = event(account, 4)
    client.post("/v1/usage", content=json.dumps(last), headers=STRUCTURED)
    until(lambda: remaining(api, account) == str(10_000_000 - 4 * 1030))


def test_each_event_of_a_batch_is_answered(api: Api) -> None:
    account, client = opened(api), api.clients["ingest"]
    bad = event(account, 2, data={"model": "deepseek-v3.2", "usage": {"input": -1}})
    missing = event(account, 3, data={"usage": {}})
    answer = client.post("/v1/usage", content=json.dumps([event(account, 1), bad, missing]), headers=BATCH)
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (1, 2)
    assert [result["index"] for result in body["results"]] == [0, 1, 2]
    problem = body["results"][1]["problem"]
    assert (problem["code"], problem["field"]) == ("usage_mismatch", "data.usage.input")
    assert "-1" in problem["detail"]
    assert body["results"][2]["problem"]["field"] == "data.model"
    alone = check_problem(client.post("/v1/usage", content=json.dumps([bad]), headers=BATCH), 422, "nothing_taken")
    assert alone["results"][0]["problem"]["code"] == "usage_mismatch"
    check_problem(client.post("/v1/usage", content=json.dumps(bad), headers=STRUCTURED), 422, "usage_mismatch")


def test_usage_of_unknown_and_closed_accounts_is_recorded_with_a_warning(api: Api, admin: httpx.Client) -> None:
    account, unknown = opened(api), api.name("never")
    closing = {"type": "account.closed.v1", "data": {"reason": "moved"}}
    assert order(admin, f"/v1/accounts/{account}/commands", closing, f"close-{account}").status_code == 201
    given = [event(unknown, 1), event(account, 1)]
    answer = api.clients["ingest"].post("/v1/usage", content=json.dumps(given), headers=BATCH)
    assert answer.status_code == 202
    codes = [result["warning"]["code"] for result in answer.json()["results"]]
    assert codes == ["unknown_account", "account_closed"]


def test_what_is_no_batch_is_refused_as_a_whole(api: Api) -> None:
    client, good = api.clients["ingest"], json.dumps(event(opened(api), 1))
    for broken in (
        "",
        "{}",
        f"[{good}",
        f"[{good},]",
        f"[{good} {good}]",
        f"[{good}] x",
        "[nan]",
        "[" * 5000,
        "\ud800",
    ):
        content = broken.encode("utf-8", "surrogatepass")
        check_problem(client.post("/v1/usage", content=content, headers=BATCH), 400, "invalid_json")
    many = "[" + ",".join(["{}"] * 1001) + "]"
    check_problem(client.post("/v1/usage", content=many, headers=BATCH), 422, "too_many_events")
    check_problem(
        client.post("/v1/usage", content=good, headers={"content-type": "text/plain"}), 415, "unsupported_media_type"
    )
    large = json.dumps(event("a", 1, padding="x" * (600 << 10)))
    check_problem(client.post("/v1/usage", content=large, headers=STRUCTURED), 413, "too_large")
    assert client.post("/v1/usage", content="[]", headers=BATCH).json() == {"accepted": 0, "refused": 0, "results": []}


def test_a_key_for_one_account_sends_no_usage_of_another(api: Api) -> None:
    account, other = opened(api), opened(api)
    with api.client(api.key("ingest", account, f"urn:test:{account}", f"urn:test:{other}")) as client:
        body = json.dumps([event(account, 1), event(other, 1)])
        answer = client.post("/v1/usage", content=body, headers=BATCH)
        assert answer.status_code == 207
        assert [result["accepted"] for result in answer.json()["results"]] == [True, False]
        check_problem(
            client.post("/v1/usage", content=json.dumps(event(other, 2)), headers=STRUCTURED), 403, "other_account"
        )


def test_a_key_sends_usage_of_its_sources_only(api: Api) -> None:
    """A key scoped to A that sends the source of B gets 403, also as a binary event and for its element of a batch."""
    account, other = with_package(api), with_package(api)
    theirs = f"urn:test:{other}"
    with api.client(api.key("ingest", account, f"urn:test:{account}")) as client:
        taken = event(account, 1, source=theirs)
        answer = client.post("/v1/usage", content=json.dumps(taken), headers=STRUCTURED)
        assert theirs in check_problem(answer, 403, "source_not_allowed")["detail"]
        attributes = {f"ce-{name}": str(value) for name, value in taken.items() if name != "data"}
        check_problem(client.post("/v1/usage", json=taken["data"], headers=attributes), 403, "source_not_allowed")
        longer = event(account, 2, source=f"urn:test:{account}b")
        check_problem(
            client.post("/v1/usage", content=json.dumps(longer), headers=STRUCTURED), 403, "source_not_allowed"
        )
        mine = [event(account, 1, source=f"urn:test:{account}{end}") for end in ("", ":7", "/7", "#p3")]
        answer = client.post("/v1/usage", content=json.dumps([taken, *mine]), headers=BATCH)
        assert answer.status_code == 207
        results = answer.json()["results"]
        assert [result["accepted"] for result in results] == [False, True, True, True, True]
        assert (results[0]["problem"]["code"], results[0]["problem"]["status"]) == ("source_not_allowed", 403)
        assert results[0]["problem"]["field"] == "source"
    answer = api.clients["ingest"].post("/v1/usage", content=json.dumps(event(other, 1)), headers=STRUCTURED)
    assert answer.status_code == 202
    until(lambda: remaining(api, other) == str(10_000_000 - 1030))


def test_no_key_sends_usage_of_the_products_own_sources(api: Api, admin: httpx.Client) -> None:
    account = with_package(api)
    for client in (admin, api.clients["ingest"]):
        for source in ("urn:tokenbill:reservations", "urn:tokenbill:x"):
            body = json.dumps(event(account, 1, source=source))
            check_problem(client.post("/v1/usage", content=body, headers=STRUCTURED), 403, "source_not_allowed")


def test_a_scoped_key_from_before_sources_is_told_what_to_do(api: Api) -> None:
    account = with_package(api)
    token = api.key("ingest", account, "urn:x")
    stack_url = stack.info(api.folder).admin_database_url
    assert stack_url is not None
    with psycopg.connect(stack_url) as connection:
        connection.execute("UPDATE tokenbill.api_key SET sources = '{}' WHERE account = %s", (account,))
    with api.client(token) as client:
        answer = client.post("/v1/usage", content=json.dumps(event(account, 1)), headers=STRUCTURED)
        detail = check_problem(answer, 403, "source_not_allowed")["detail"]
        assert f"tokenbill api-key create NAME --role ingest --account {account} --source PREFIX" in detail


def test_a_key_is_made_with_sources(api: Api) -> None:
    run = CliRunner()

    def create(*options: str) -> Result:
        return run.invoke(cli, ["api-key", "create", "k", *options, "--json", "--data-dir", str(api.folder)])

    account, other = api.name(), api.name()
    for options, said in (
        (("--role", "ingest", "--account", account), "needs the sources"),
        (("--role", "admin", "--account", account), "needs the sources"),
        (("--role", "read", "--source", "urn:a"), "sends no usage"),
        (("--role", "ingest", "--source", "urn:tokenbill:"), "the product's own"),
        (("--role", "ingest", "--source", "urn:tokenbill"), "the product's own"),
        (("--role", "ingest", "--source", "urn:tokenbill:api"), "the product's own"),
        (("--role", "ingest", "--source", ""), "no prefix"),
        (("--role", "ingest", "--source", "a\n"), "no prefix"),
    ):
        done = create(*options)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output
    prefix = f"urn:test:{account}"
    first = create("--role", "ingest", "--account", account, "--source", prefix, "--source", "urn:more")
    assert (first.exit_code, first.stderr) == (0, "")
    assert json.loads(first.stdout)["sources"] == [prefix, "urn:more"]
    second = create("--role", "ingest", "--account", other, "--source", f"{prefix}:7")
    assert second.exit_code == 0
    assert f"{prefix}:7 overlaps {prefix}" in second.stderr and account in second.stderr
    listed = run.invoke(cli, ["api-key", "list", "--data-dir", str(api.folder)])
    assert f"{prefix} urn:more" in listed.stdout


def test_a_quote_is_what_is_charged_then(api: Api) -> None:
    account, client = with_package(api), api.clients["operator"]
    data = {
        "model": "qwen3-max",
        "energy_source": "solar",
        "usage": {"input": 70_000, "cache_read": 500, "output": 900},
    }
    quote = client.post("/v1/quotes", json={"account": account, "data": data}).json()
    before = client.get(f"/v1/accounts/{account}/balance").json()
    assert quote["burned"] and quote["explain"]["row"]
    assert sum(int(float(line["quantity"])) for line in quote["lines"]) == 71_400
    sent = event(account, 1, data=data)
    assert api.clients["ingest"].post("/v1/usage", content=json.dumps(sent), headers=STRUCTURED).status_code == 202
    until(lambda: client.get(f"/v1/accounts/{account}/balance").json()["buckets"] != before["buckets"])
    after = client.get(f"/v1/accounts/{account}/balance").json()
    assert after | {"account": account} | quote["after"] == after


def test_a_quote_without_an_account_is_the_price_alone(api: Api) -> None:
    client = api.clients["read"]
    book = {"price_book": "retail-cn"}
    data = {"model": "deepseek-v3.2", "usage": {"input": 1_000_000}}
    quote = client.post("/v1/quotes?explain=false", json={**book, "data": data}).json()
    assert quote["amount"] == "2"
    assert not {"burned", "charged", "after", "explain"} & quote.keys()
    for body, status, code in (
        ({"data": data, "price_book": "none"}, 404, "unknown_price_book"),
        ({"data": {"model": "nobody-serves-this", "usage": {"input": 1}}, **book}, 422, "no_price"),
        ({"data": {"model": "deepseek-v3.2", "usage": {"input": -1}}, **book}, 422, "usage_mismatch"),
        ({"data": data, "time": "1999-01-01T00:00:00Z", **book}, 422, "no_price_book"),
        ({"data": data, "account": "nobody-opened-this"}, 404, "unknown_account"),
        ({"data": data, "when": "now"}, 400, "invalid_request"),
        ({}, 422, "invalid_event"),
    ):
        check_problem(client.post("/v1/quotes", json=body), status, code)


def test_a_withdrawn_plan_says_so_and_is_refused_over_http(api: Api, tmp_path: Path) -> None:
    name = api.name("gone")
    plan = (
        f"kind: plan\nname: {name}\nversion: %d\ntitle: {{en: gone}}\ncycle: {{kind: once}}\n"
        'price: {amount: "1", currency: CNY, tax_rate: "0.06"}\n'
        'buckets: [{unit: STD_TOKEN, amount: "1", kind: periodic}]\n'
    )
    versions = (plan % 1, plan % 2 + 'withdrawn_from: "2026-11-01T00:00:00+08:00"\n')
    for number, text in enumerate(versions):
        (tmp_path / f"{number}.yaml").write_text(text)
    with Store(api.database_url) as store:
        done = store.publish(load_folder(tmp_path))
        assert store.wait_for_workers(done.epoch, 60) == []
    client = api.clients["read"]
    until(lambda: client.get(f"/v1/plans/{name}").status_code == 200)
    [listed] = [one for one in client.get("/v1/plans", params={"limit": 1000}).json()["items"] if one["name"] == name]
    assert (listed["version"], listed["withdrawn_from"]) == (2, "2026-10-31T16:00:00Z")
    assert "withdrawn_from" not in client.get(f"/v1/plans/{name}").json()["versions"][1]
    account = opened(api)
    for path, body in (
        ("purchases", {"plan": name, "plan_version": 1, "grant_id": "g"}),
        ("subscriptions", {"plan": name, "subscription_id": "s"}),
    ):
        answer = order(api.clients["admin"], f"/v1/accounts/{account}/{path}", body, f"{path}-{account}")
        problem = check_problem(answer, 409, "plan_withdrawn")
        assert problem["detail"].startswith(f"plan '{name}' is not sold since 2026-10-31T16:00:00Z, by its version 2")


def test_plans_and_price_books_are_listed_and_shown(api: Api) -> None:
    client = api.clients["read"]
    first = client.get("/v1/plans", params={"limit": 2}).json()
    second = client.get("/v1/plans", params={"limit": 100, "cursor": first["next_cursor"]}).json()
    names = [plan["name"] for plan in first["items"] + second["items"]]
    assert names == sorted(set(names)) and "token-9.9" in names
    [version] = client.get("/v1/plans/token-9.9").json()["versions"]
    assert version["title"] == {"zh": "9.9元词元包", "en": version["title"]["en"]}
    assert version["price"]["amount"] == "9.9"
    [book] = [one for one in client.get("/v1/price-books").json()["items"] if one["name"] == "retail-cn"]
    whole = client.get(f"/v1/price-books/{book['name']}/versions/{book['version']}").json()
    assert len(whole["rows"]) == book["rows"]
    check_problem(client.get("/v1/plans/none"), 404, "unknown_plan")
    check_problem(client.get("/v1/price-books/none/versions/1"), 404, "unknown_price_book")


@pytest.mark.parametrize("numbered", [True, False])
def test_a_lone_event_is_told_what_became_of_it(api: Api, numbered: bool) -> None:
    account, client = with_package(api), api.clients["ingest"]
    one = event(account, 1)
    if not numbered:
        del one["sequence"]

    def told(sent: dict[str, Any], wait: str = "wait=20") -> dict[str, Any] | None:
        answer = client.post("/v1/usage", content=json.dumps(sent), headers=STRUCTURED | {"prefer": wait})
        assert answer.status_code == 202, answer.text
        [result] = answer.json()["results"]
        decision: dict[str, Any] | None = result["decision"]
        return decision

    nothing = {"reason": None, "detail": None}
    assert told(one) == {"outcome": "rated"} | nothing
    assert told(one) == {"outcome": "duplicate"} | nothing
    assert told(one | {"data": one["data"] | {"usage": {"input": 7}}}) == {"outcome": "conflict"} | nothing
    earlier = format_time_us(time.time_ns() // 1000 - 2 * 3_600_000_000)
    assert told(one | {"time": earlier}) == {"outcome": "conflict"} | nothing
    if numbered:
        reused = told(one | {"id": "another"})
        assert reused is not None and (reused["outcome"], reused["reason"]) == ("rejected", "sequence_reused")
    assert remaining(api, account) == str(10_000_000 - 1030)
    answer = client.post("/v1/usage", content=json.dumps(event(account, 3)), headers=STRUCTURED)
    assert answer.json()["results"][0]["decision"] is None
