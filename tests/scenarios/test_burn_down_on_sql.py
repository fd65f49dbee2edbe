"""The scenarios through the compiled engine on real PostgreSQL, loaded anew every few records, by the log's time."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg.rows import tuple_row
from scenario_files import Scenario, catalogue, scenarios
from sqlalchemy import make_url

from billing.commit import COMMAND_TOPIC, USAGE_TOPIC, InputBatch, PartitionState, PlainRecord
from billing.core import CompiledCalculator
from billing.documents import account_object
from billing.engine import PartitionEngine
from billing.history import AccountHistory, DecidedBatches, decided_batches, histories
from billing.limits import TimeLimits
from billing.store import Store
from billing.store.audit import audit
from billing.store.database import SCHEMA
from billing.store.migrate import APP, migrate, role_url
from billing.store.seed import seed
from schemas.cloudevents import write_structured
from schemas.commands import PassTime
from schemas.routing import partition_of
from schemas.units import format_pico

PARTITIONS = 128
ALONE = [scenario for scenario in scenarios() if not scenario.others]
"""A transfer needs the relay between two partitions: it has tests of its own (tests/store, tests/integration)."""
RECORDS_PER_OWNER = 3


class KeepingStore(Store):
    """A store whose log is what was decided here, as a worker's is what Kafka has."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.decided: dict[int, list[DecidedBatches]] = defaultdict(list)

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory]:
        return histories(self.decided[state.partition], accounts)


@pytest.fixture(scope="module")
def prepared(servers: Any) -> Iterator[tuple[str, KeepingStore]]:
    """A database of its own with the scenarios' catalogue: the administrator's address, and the store."""
    admin: str = servers.admin_database_url
    name = f"tb_scenarios_{uuid.uuid4().hex[:12]}"
    url = make_url(admin).set(database=name).render_as_string(hide_password=False)
    migrate(url, "secret", None)
    seed(url, PARTITIONS)
    with KeepingStore(role_url(url, APP, "secret")) as store:
        store.publish(catalogue())
        yield url, store
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def name_on(partition: int) -> str:
    """An account that lives on this partition."""
    return next(name for n in range(100_000) if partition_of(name := f"a{n}", PARTITIONS) == partition)


def commit(store: KeepingStore, partition: int, records: Sequence[tuple[int, bytes]]) -> None:
    """Decide records, each a commit of its own, by an owner that has just taken the partition over."""
    epoch, state = store.acquire(partition)
    catalog_epoch, catalog = store.catalog()
    limits, log_time_us = TimeLimits(), state.log_time_us
    engine = PartitionEngine(state, catalog_epoch, catalog, store, CompiledCalculator(), limits)
    for log_us, line in records:
        topic = USAGE_TOPIC if b'"token.usage.v1"' in line else COMMAND_TOPIC
        start = engine.positions.get(topic, 0)
        record = PlainRecord(start, log_us // 1000, None, line)
        batches = [InputBatch(topic, start, start + 1, [record])]
        made = engine.decide(batches)
        store.commit(epoch, made)
        engine.committed()
        store.decided[partition].append(decided_batches(catalog_epoch, catalog, limits, log_time_us, batches, made))
        log_time_us = made.log_time_us


@pytest.mark.parametrize("number", range(len(ALONE)), ids=[scenario.name for scenario in ALONE])
def test_what_is_left_in_sql(number: int, prepared: tuple[str, KeepingStore]) -> None:
    url, store = prepared
    scenario, name = ALONE[number], name_on(number)
    log_us, records = 0, list[tuple[int, bytes]]()
    for time_us, line in scenario.lines({"a": name}):
        log_us = max(log_us, time_us)
        records.append((log_us, line))
    until_us = log_us if scenario.as_of_us is None else scenario.as_of_us
    # The log's time is in milliseconds: what happens at its last instant has happened.
    tick = write_structured(PassTime.TYPE, "urn:scenario:clock", f"tick-{name}", until_us, name, {})
    records.append((until_us, tick))
    for first in range(0, len(records), RECORDS_PER_OWNER):
        commit(store, number, records[first : first + RECORDS_PER_OWNER])
    check(scenario, url, store, number, name)


def check(scenario: Scenario, url: str, store: Store, partition: int, name: str) -> None:
    account = account_object(store.load_accounts([name])[0])
    left = {bucket["grant_id"]: f"{bucket['remaining']} {bucket['status']}" for bucket in account["buckets"]}
    assert {grant: left.get(grant) for grant in scenario.left} == scenario.left
    with psycopg.connect(url.replace("+psycopg", ""), row_factory=tuple_row) as connection:
        connection.execute(f"SET search_path = {SCHEMA}")  # type: ignore[arg-type]
        rows = connection.execute(
            "SELECT account_code, sum(amount_pico)::text FROM journal WHERE partition = %s GROUP BY 1", (partition,)
        )
        sums = {code: int(total) for code, total in rows}
    found = {field: account[field] for field in ("wallet", "absorbed", "absorbed_amount")}
    found["revenue"] = format_pico(-sums.get("revenue_usage", 0))
    found["breakage"] = format_pico(-sums.get("revenue_breakage", 0))
    assert found == {field: getattr(scenario, field) for field in found}
    assert sum(sums.values()) == 0


def test_the_books_agree_after_all_of_it(prepared: tuple[str, KeepingStore]) -> None:
    outcome = audit(prepared[0])
    assert outcome.passed, outcome
