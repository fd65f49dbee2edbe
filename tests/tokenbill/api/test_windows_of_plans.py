"""Windows of plans beside a balance over HTTP: what they leave now, and when they end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from api_rig import Api, until
from api_steps import opened, order
from test_usage_over_http import STRUCTURED, event

from billing.catalog import Catalog
from billing.catalog.model import Window
from billing.store.store import Store
from schemas.times import HOUR_US, parse_time_us

WINDOWS = (
    Window("from_first_use", 5, "", 3_000_000_000),
    Window("rolling", 5, "", 2_000_000, "REQUEST"),
    Window("fixed", 0, "day", 9_000_000_000),
)


def test_a_balance_tells_what_windows_leave(api: Api) -> None:
    account, plan_name = opened(api, top_up="2"), api.name("windows")
    with Store(api.database_url) as store:
        plan = store.catalog()[1].plan("pack-1-yuan")
        assert plan is not None
        done = store.publish(Catalog(plans=(replace(plan, name=plan_name, windows=WINDOWS),)))
        assert store.wait_for_workers(done.epoch, 60) == []
    body = {"plan": plan_name, "grant_id": "g", "pay_from": "wallet"}
    assert order(api.clients["admin"], f"/v1/accounts/{account}/purchases", body, f"buy-{account}").status_code == 201

    def windows() -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = api.clients["read"].get(f"/v1/accounts/{account}/balance").json()["windows"]
        return seen

    first, rolling, day = windows()
    assert (first["left"], first["begins"], first["ends"]) == ("3000", None, None)
    assert (rolling["unit"], rolling["left"], rolling["ends"]) == ("REQUEST", "2", None)
    assert parse_time_us(day["ends"]) - parse_time_us(day["begins"]) == 24 * HOUR_US
    sent = event(account, 1)
    api.clients["ingest"].post("/v1/usage", content=json.dumps(sent), headers=STRUCTURED)
    until(lambda: windows()[0]["left"] == "1970")
    first, rolling, day = windows()
    assert (first["used"], first["begins"]) == ("1030", sent["time"])
    assert parse_time_us(first["ends"]) - parse_time_us(first["begins"]) == 5 * HOUR_US
    assert (rolling["left"], parse_time_us(rolling["ends"])) == ("1", parse_time_us(sent["time"]) + 5 * HOUR_US)
    assert (day["plan"], day["kind"], day["every"], day["left"]) == (plan_name, "fixed", "day", "7970")
