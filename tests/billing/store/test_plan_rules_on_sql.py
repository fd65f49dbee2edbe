"""Debts, limited carry-overs, true-ups and refunds at cancellation in SQL: the audit passes after every commit."""

import json
from pathlib import Path

import yaml
from own_database import PreparedDatabase
from test_bills_on_sql import ACCOUNT, BEGIN_US, PARTITION, problems

from billing.calculator.compiled import CompiledCalculator
from billing.catalog import load_folder
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import PartitionEngine
from billing.store.proofs import reports
from billing.store.store import Store
from schemas.times import DAY_US, format_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

TIERS = [{"up_to": "20"}, {"up_to": None, "multiply": "0.5"}]
BOOK = {
    "kind": "price_book",
    "name": "b",
    "version": 1,
    "currency": "CNY",
    "effective_from": "2020-01-01T00:00:00+08:00",
    "periods": {"whole": {"kind": "volume", "every": "day", "count": "input", "tiers": TIERS, "settle": "at_end"}},
    "rows": [
        {"model": "m", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "1"}},
        {"model": "v", "per_million": {"input": "1060000"}, "periods": "whole"},
    ],
}
BUCKET = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "carry_over": {"cycles": 1, "max": "20"}}
PLAN = {
    "kind": "plan",
    "name": "owe",
    "version": 1,
    "title": {"en": "owe"},
    "price": {"amount": "106.00", "currency": "CNY", "tax_rate": "0.06"},
    "cycle": {"kind": "days", "days": 5},
    "buckets": [BUCKET],
    "overage": {"mode": "owe"},
    "cancellation": {"refund": "by_time"},
}


class Life:
    """The life of one account; every step is a commit by a new owner, and the audit follows it."""

    def __init__(self, database: PreparedDatabase, store: Store) -> None:
        self.database, self.store = database, store

    def step(self, topic: str, kind: str, days: int, data: dict[str, object]) -> None:
        epoch, state = self.store.acquire(PARTITION)
        engine = PartitionEngine(state, *self.store.catalog(), self.store, CompiledCalculator())
        start, at_us = engine.positions.get(topic, 0), BEGIN_US + days * DAY_US
        line = {"specversion": "1.0", "type": kind, "source": "urn:t", "id": f"{kind}-{start}", "subject": ACCOUNT}
        value = json.dumps(line | {"time": format_time_us(at_us), "data": data}).encode()
        record = PlainRecord(start, at_us // 1000, None, value)
        self.store.commit(epoch, engine.decide([InputBatch(topic, start, start + 1, [record])], due=[ACCOUNT]))
        assert problems(self.database) == []

    def order(self, kind: str, days: int, **data: object) -> None:
        self.step(COMMAND_TOPIC, kind, days, data)

    def use(self, days: int, tokens: int, model: str = "m") -> None:
        self.step(USAGE_TOPIC, "token.usage.v1", days, {"model": model, "usage": {"input": tokens}})


def test_the_books_add_up_after_every_step(database: PreparedDatabase, store: Store, tmp_path: Path) -> None:
    for name, entry in (("book", BOOK), ("plan", PLAN)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    store.publish(load_folder(tmp_path))
    life = Life(database, store)
    life.order("account.opened.v1", 0, currency="CNY")
    life.order("wallet.topped_up.v1", 0, amount="500", payment_ref="p")
    life.order("subscription.started.v1", 0, plan="owe", subscription_id="S", pay_from="wallet")
    life.use(1, 130)
    assert store.load_accounts([ACCOUNT])[0].extras.owed_micro == {"owe": 30_000_000}
    life.use(6, 10)  # the second cycle: 30 of 100 paid the debt
    account = store.load_accounts([ACCOUNT])[0]
    assert [(one.grant_id, one.remaining_micro) for one in account.buckets] == [("S/1/1", 0), ("S/2/1", 60_000_000)]
    assert (account.extras.owed_micro, account.extras.unburned_micro) == ({}, 30_000_000)
    life.use(12, 5)  # 60 are left of the second cycle, and 20 are carried over
    left = {one.grant_id: one.remaining_micro for one in store.load_accounts([ACCOUNT])[0].buckets}
    assert left == {"S/1/1": 0, "S/2/1": 15_000_000, "S/3/1": 100_000_000}
    life.use(12, 50, "v")
    assert store.load_accounts([ACCOUNT])[0].extras.true_ups
    life.order("subscription.cancelled.v1", 13, subscription_id="S", immediately=True)
    life.order("time.passed.v1", 15)
    kinds = {row["kind"] for row in reports.revenue(database.report_url, None, None)}
    assert kinds == {"usage", "breakage", "true_up", "debt"}
