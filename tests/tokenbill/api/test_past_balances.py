"""The balance at a past time equals the balance that was read at that time, whatever happened since."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from api_rig import PARTITIONS, Api, check_problem, until
from api_steps import opened, order
from test_usage_over_http import STRUCTURED, event, remaining, with_package

from billing.catalog import Catalog
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.times import format_time_us
from schemas.topics import USAGE_TOPIC
from streams.send.emitter import input_producer


def moment() -> str:
    """Return a time strictly between the earlier and the later records: the log's clock counts milliseconds."""
    time.sleep(0.02)
    text = format_time_us(time.time_ns() // 1000)
    time.sleep(0.02)
    return text


def balance(api: Api, account: str, **parameters: str) -> dict[str, Any]:
    answer = api.clients["read"].get(f"/v1/accounts/{account}/balance", params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_every_past_balance_is_found_again(api: Api) -> None:
    before = moment()
    account = with_package(api)
    seen = [(moment(), balance(api, account))]
    for number in range(1, 4):
        sent = event(account, number)
        api.clients["ingest"].post("/v1/usage", content=json.dumps(sent), headers=STRUCTURED)
        until(lambda number=number: remaining(api, account) == str(10_000_000 - number * 1030))
        body = {"amount": "1", "payment_ref": f"p{number}"}
        order(api.clients["admin"], f"/v1/accounts/{account}/top-ups", body, f"p{number}-{account}")
        seen.append((moment(), balance(api, account)))
    assert len({json.dumps(state) for _, state in seen}) == 4
    for at, state in seen:
        assert balance(api, account, at=at) == state
    client = api.clients["read"]
    path = f"/v1/accounts/{account}/balance"
    check_problem(client.get(path, params={"at": before}), 404, "unknown_account")
    check_problem(client.get(path, params={"at": "2999-01-01T00:00:00Z"}), 422, "invalid_time")
    check_problem(client.get(path, params={"at": "yesterday"}), 422, "invalid_time")


def test_the_catalogue_and_the_way_of_that_time_decide_again(api: Api) -> None:
    """A replay uses a plan that is published in between, and usage that arrived on the wrong partition."""
    account, plan_name = opened(api, top_up="2"), api.name("plan")
    at, state = moment(), balance(api, account)
    with Store(api.database_url) as store:
        plan = store.catalog()[1].plan("pack-1-yuan")
        assert plan is not None
        done = store.publish(Catalog(plans=(replace(plan, name=plan_name),)))
        assert store.wait_for_workers(done.epoch, 60) == []
    body = {"plan": plan_name, "grant_id": "g", "pay_from": "wallet"}
    assert order(api.clients["admin"], f"/v1/accounts/{account}/purchases", body, f"buy-{account}").status_code == 201
    wrong = 1 - partition_of(account, PARTITIONS)
    producer = input_producer(api.kafka, lambda error, _: None)
    producer.produce(USAGE_TOPIC, json.dumps(event(account, 1)), account.encode(), wrong)
    assert producer.flush(30) == 0
    del producer
    until(lambda: remaining(api, account) == str(400_000 - 1030))
    assert balance(api, account, at=at) == state
    assert balance(api, account, at=moment()) == balance(api, account)
