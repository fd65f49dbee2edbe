"""Tests that the HTTP API shows a plan as its file states it: written to a file again, it is the same plan."""

from pathlib import Path

import yaml

from billing.catalog import load_folder
from billing.catalog.entry_documents import book_object, plan_object

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "catalog"
FAMILY = """
kind: plan
name: family
version: 1
title: {zh: "家庭套餐", en: "family plan"}
price: {amount: "19.90", currency: CNY, tax_rate: "0.06"}
cycle: {kind: calendar_month, timezone: Asia/Shanghai}
buckets: [{unit: STD_TOKEN, amount: "1000", kind: periodic, scope: {channel: [cloud, edge]}}]
windows: [{kind: rolling, hours: 5, cap: "200"}, {kind: fixed, every: week, cap: "900"}]
overage: {mode: pay_as_you_go, cap: "30", consent: required}
alerts: ["0.8"]
members: {seats: 4, cap: "300"}
"""
CODING = """
kind: plan
name: coding
version: 1
title: {en: "a coding plan of a year"}
price: {amount: "480.00", currency: CNY, tax_rate: "0.06"}
cycle: {kind: years, years: 1}
buckets: [{unit: REQUEST, amount: "18000", kind: periodic, every: month}]
windows:
  - {kind: from_first_use, hours: 5, cap: "1200", alerts: ["0.8", "1"]}
  - {kind: fixed, every: day, cap: "3000", unit: REQUEST}
  - {kind: rolling, hours: 5, cap: "2000000", unit: STD_TOKEN}
members: {cap: "300"}
"""
PRORATED = """
kind: plan
name: prorated
version: 1
title: {en: "a calendar month with proration"}
price: {amount: "10.00", currency: CNY, tax_rate: "0.06"}
cycle: {kind: calendar_month}
buckets: [{unit: STD_TOKEN, amount: "10", kind: periodic}]
proration: {fee: true, quota: false}
"""
OWING = """
kind: plan
name: owing
version: 1
title: {en: "owing"}
price: {amount: "19.90", currency: CNY, tax_rate: "0.06"}
cycle: {kind: calendar_month, timezone: Asia/Shanghai}
buckets: [{unit: STD_TOKEN, amount: "1000", kind: periodic, carry_over: {cycles: 2, max: "50", min: "0.5"}}]
overage: {mode: owe, max_owed: "300"}
cancellation: {refund: by_time}
"""
TIERED = """
kind: price_book
name: tiered
version: 1
currency: CNY
effective_from: "2026-01-01T00:00:00+08:00"
standard_token_price: "4"
time_bands: {night: {timezone: Asia/Shanghai, days: [mon, sun], hours: ["22:00-06:00"]}}
periods:
  monthly: {kind: graduated, count: [input], tiers: [{up_to: "10"}, {up_to: null, multiply: "0.9"}]}
  weekly: {kind: volume, every: week, count: standard_tokens, tiers: [{up_to: "5"}, {up_to: null, multiply: "0.8"}]}
  daily: {kind: blocks, every: day, timezone: UTC, count: searches, block: {units: "1000", price: "0.50"}}
  deal: {kind: commitment, amount: "1000", multiply: "0.8"}
  whole: {kind: volume, count: [input], tiers: [{up_to: "5"}, {up_to: null}], settle: at_end}
  aside: {kind: commitment, amount: "10", included_usage: out}
rows:
  - {model: a, per_million: {input: "2", output: "3"}, periods: [monthly, deal], context: [0, 100]}
  - {model: a, per_million: {input: "4", output: "6"}, context: [100, null]}
  - {model: b, time_band: night, per_million: {input: "2", output: "3"}, periods: weekly}
  - {model: b, per_million: {input: "2"}, minimum_charge: "0.01", increments: {input: {minimum: 4}}}
  - {model: c, per_million: {input: "2"}, output_context: [0, null]}
  - {model: search, per_million: {searches: "500"}, periods: daily}
  - {model: whole, per_million: {input: "2"}, periods: whole}
  - {model: aside, per_million: {input: "2"}, periods: aside}
"""


def test_a_plan_that_is_written_again_is_the_same_plan(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    for name, text in (("family", FAMILY), ("coding", CODING), ("prorated", PRORATED), ("owing", OWING)):
        (tmp_path / "first" / f"{name}.yaml").write_text(text)
    plans = [*load_folder(EXAMPLES).plans, *load_folder(tmp_path / "first").plans]
    assert len(plans) > 4
    again = tmp_path / "again"
    again.mkdir()
    for plan in plans:
        text = yaml.safe_dump({"kind": "plan"} | plan_object(plan), allow_unicode=True, default_style='"')
        (again / f"{plan.name}.yaml").write_text(text.replace('"null"', "null"))
    assert list(load_folder(again).plans) == sorted(plans, key=lambda plan: plan.name)
    assert plan_object(plans[-1])["proration"] == {"fee": True, "quota": False}


def test_a_price_book_is_shown_whole(tmp_path: Path) -> None:
    (tmp_path / "tiered.yaml").write_text(TIERED)
    [book] = load_folder(tmp_path).price_books
    shown = book_object(book)
    written = yaml.safe_load(TIERED)
    for name, rule in written["periods"].items():
        assert {key: shown["periods"][name][key] for key in rule if key not in ("count", "tiers")} == {
            key: rule[key] if key != "block" else {"units": "1000", "price": "0.5"}
            for key in rule
            if key not in ("count", "tiers")
        }
    assert [tier["up_to"] for tier in shown["periods"]["weekly"]["tiers"]] == ["5", None]
    assert [row.get("periods") for row in shown["rows"]] == [
        ["monthly", "deal"],
        None,
        ["weekly"],
        None,
        None,
        ["daily"],
        ["whole"],
        ["aside"],
    ]
    assert shown["time_bands"]["night"]["hours"] == ["22:00-06:00"]
    assert shown["rows"][3]["minimum_charge"] == "0.01"
    assert shown["rows"][3]["increments"] == {"input": {"minimum": 4, "step": 1}}
    assert shown["rows"][4]["output_context"] == [0, None]
