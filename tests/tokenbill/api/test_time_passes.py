"""An idle account renews on time, because the scheduler of the stack lets time pass on its partition."""

from __future__ import annotations

import time
from dataclasses import replace

from api_rig import Api, until

from billing.catalog.model import Catalog, Cycle
from billing.store.store import Store
from schemas.times import DAY_US, format_time_us


def buckets(api: Api, account: str) -> dict[str, str]:
    found = api.clients["read"].get(f"/v1/accounts/{account}/balance").json()["buckets"]
    return {bucket["grant_id"]: bucket["status"] for bucket in found}


def test_an_idle_account_renews(api: Api) -> None:
    account, plan_name, admin = api.name("idle"), api.name("daily"), api.clients["admin"]
    with Store(api.database_url) as store:
        plan = store.catalog()[1].plan("token-9.9")
        assert plan is not None
        daily = replace(plan, name=plan_name, cycle=Cycle("days", "Asia/Shanghai", 1))
        assert store.wait_for_workers(store.publish(Catalog(plans=(daily,))).epoch, 60) == []
    assert admin.post("/v1/accounts", json={"account": account, "currency": "CNY", "price_book": "retail-cn"},
                      headers={"idempotency-key": f"open-{account}"}).status_code == 201  # fmt: skip
    begun_us = time.time_ns() // 1000 - DAY_US + 8_000_000
    order = {"plan": plan_name, "subscription_id": "s", "starts_at": format_time_us(begun_us)}
    answer = admin.post(
        f"/v1/accounts/{account}/subscriptions", json=order, headers={"idempotency-key": f"start-{account}"}
    )
    assert answer.status_code == 201, answer.text
    assert buckets(api, account) == {"s/1/1": "active"}
    until(lambda: buckets(api, account) == {"s/1/1": "active", "s/2/1": "active"})
