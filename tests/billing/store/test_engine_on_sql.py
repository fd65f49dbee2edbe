"""Commit boundaries and reloads of a partition change no balance: SQL equals ``simulate``."""

import json
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from own_database import PreparedDatabase

from billing.calculator.plain import PlainCalculator
from billing.catalog import Catalog, load_folder
from billing.catalog.period_rules import ONE_PICO, PeriodRule, Tier
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import PartitionEngine
from billing.engine.simulation import Simulation
from billing.store.proofs import reports
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.times import format_time_us, parse_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

CATALOG = Path(__file__).parents[3] / "examples" / "catalog"
START_US = parse_time_us("2026-11-22T01:00:00Z")
PARTITIONS = 4


def event(kind: str, source: str, number: int, account: str, data: dict[str, object], numbered: bool) -> bytes:
    envelope = {
        "specversion": "1.0", "type": kind, "source": source, "id": f"{kind}-{number}", "subject": account,
        "time": format_time_us(START_US + number * 1_000_000), "data": data,
    }  # fmt: skip
    if numbered:
        envelope["sequence"] = str(number + 1)
    return json.dumps(envelope).encode()


def traffic(chance: random.Random) -> list[tuple[str, bytes]]:
    """Return (account, line) pairs: commands for 12 accounts, then usage.

    The usage includes duplicates, events without a price, and events of unknown accounts.
    """
    lines: list[tuple[str, bytes]] = []
    for number in range(12):
        account = f"acct-{number}"
        commands: list[tuple[str, dict[str, object]]] = [
            ("account.opened.v1", {"currency": "CNY", "price_book": "retail-cn"}),
            ("wallet.topped_up.v1", {"amount": "20", "payment_ref": f"p-{number}"}),
        ]
        if number % 3:
            commands.append(("package.purchased.v1", {"plan": "token-9.9", "grant_id": "g1"}))
        for kind, data in commands:
            lines.append((account, event(kind, f"urn:crm:{kind}", number, account, data, False)))
    for number in range(400):
        account = f"acct-{chance.randrange(13)}"
        usage = {"input": chance.randrange(1, 40_000), "output": chance.randrange(1, 90_000)}
        model = "no-such-model" if chance.random() < 0.03 else "deepseek-v3.2"
        source = chance.choice(["urn:node-1", "urn:plain"])
        line = event(
            "token.usage.v1", source, number, account, {"model": model, "usage": usage}, source == "urn:node-1"
        )
        lines += [(account, line)] * (2 if chance.random() < 0.1 else 1)
    return lines


def with_period_rules(catalog: Catalog) -> Catalog:
    """Return the catalogue with period rules added: prices that depend on counters, which must survive in SQL."""
    (book,) = catalog.price_books
    tiers = (Tier(100_000), Tier(None, ONE_PICO // 3))
    rules = {
        "monthly": PeriodRule("monthly", "graduated", "calendar_month", "UTC", ("input", "output"), tiers),
        "deal": PeriodRule("deal", "commitment", "day", "UTC", amount_pico=ONE_PICO, multiply_pico=ONE_PICO // 7),
    }
    rows = tuple(replace(row, periods=tuple(rules)) for row in book.rows)
    return replace(catalog, price_books=(replace(book, rows=rows, periods=rules),))


@pytest.mark.parametrize(("seed", "periods"), [(0, False), (1, False), (2, False), (3, True)])
def test_the_engine_on_sql_equals_simulate(database: PreparedDatabase, store: Store, seed: int, periods: bool) -> None:
    chance = random.Random(seed)
    catalog = with_period_rules(load_folder(CATALOG)) if periods else load_folder(CATALOG)
    store.publish(catalog)
    lines = traffic(chance)
    waiting: dict[int, list[bytes]] = defaultdict(list)
    for account, line in lines:
        waiting[partition_of(account, PARTITIONS)].append(line)
    for partition, queue in waiting.items():
        engine, epoch = None, 0
        while queue:
            if engine is None or chance.random() < 0.3:
                epoch, state = store.acquire(partition)
                engine = PartitionEngine(state, *store.catalog(), store, PlainCalculator())
            taken = chance.randrange(1, 40)
            store.commit(epoch, engine.decide(batches(engine, queue[:taken])))
            engine.committed()
            del queue[:taken]

    simulation = Simulation(catalog, PlainCalculator())
    simulation.feed(line for _, line in lines)
    document = simulation.document()
    rows = list(reports.balances(database.report_url))
    found = {}
    for row in rows:
        buckets = [{name: row[name] for name in reports.BALANCE_COLUMNS[5:]}] if row["grant_id"] else []
        found[row["account"]] = {name: row[name] for name in reports.BALANCE_COLUMNS[1:5]} | {"buckets": buckets}
    assert found == document["accounts"]
    assert document["events"]["rated"] > 300
    assert "revenue_usage" in document["ledger"]["trial_balance"]
    balances, total = reports.trial_balance(database.report_url)
    assert {"trial_balance": balances, "sum": total} == document["ledger"]
    outcome = audit(database.report_url)
    assert outcome.passed, outcome


def batches(engine: PartitionEngine, lines: list[bytes]) -> list[InputBatch]:
    """Return the lines as one batch per topic, at the positions of the engine."""
    by_topic: dict[str, list[bytes]] = {COMMAND_TOPIC: [], USAGE_TOPIC: []}
    for line in lines:
        by_topic[USAGE_TOPIC if b"token.usage" in line else COMMAND_TOPIC].append(line)
    made = []
    for topic, found in by_topic.items():
        start = engine.positions.get(topic, 0)
        records = [
            PlainRecord(start + place, parse_time_us(json.loads(line)["time"]) // 1000, None, line)
            for place, line in enumerate(found)
        ]
        if found:
            made.append(InputBatch(topic, start, start + len(found), records))
    return made
