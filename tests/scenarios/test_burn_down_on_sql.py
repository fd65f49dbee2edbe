"""The scenarios through the compiled engine on real PostgreSQL, with the state loaded anew every few records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from own_database import PreparedDatabase, prepared_database
from scenario_files import Record, accounts_on, catalogue, scenarios, tick
from scenario_outcome import check, in_outbox, outcome_in_sql

from billing.calculator.compiled import CompiledCalculator
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.corrections.history import AccountHistory, DecidedBatches, decided_batches, histories
from billing.engine.partition_engine import PartitionEngine
from billing.log_time import TimeLimits
from billing.store.proofs.audit import audit
from billing.store.store import Store

ALONE = [scenario for scenario in scenarios() if len(scenario.accounts) == 1]
"""Scenarios with one account. A transfer needs the relay between two partitions, which only the pipeline test has."""
NAMES = accounts_on(len(ALONE))
RECORDS_PER_OWNER = 3


class KeepingStore(Store):
    """A store that keeps the decided batches, as Kafka keeps a worker's log."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.decided: dict[int, list[DecidedBatches]] = defaultdict(list)

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory]:
        return histories(self.decided[state.partition], accounts)


@pytest.fixture(scope="module")
def database(servers: Any) -> Iterator[PreparedDatabase]:
    with prepared_database(servers.admin_database_url, len(ALONE)) as made:
        yield made


@pytest.fixture(scope="module")
def store(database: PreparedDatabase) -> Iterator[KeepingStore]:
    """The store with the scenarios' catalogue."""
    with KeepingStore(database.app_url) as opened:
        opened.publish(catalogue())
        yield opened


def commit(store: KeepingStore, partition: int, records: Sequence[Record]) -> None:
    """Decide records, one per commit, by an owner that has just acquired the partition."""
    epoch, state = store.acquire(partition)
    catalog_epoch, catalog = store.catalog()
    limits, log_time_us = TimeLimits(), state.log_time_us
    engine = PartitionEngine(state, catalog_epoch, catalog, store, CompiledCalculator(), limits)
    for log_us, topic, _, value in records:
        start = engine.positions.get(topic, 0)
        batches = [InputBatch(topic, start, start + 1, [PlainRecord(start, log_us // 1000, None, value)])]
        made = engine.decide(batches)
        engine.committed(store.commit(epoch, made))
        store.decided[partition].append(decided_batches(catalog_epoch, catalog, limits, log_time_us, batches, made))
        log_time_us = made.log_time_us


@pytest.mark.parametrize("partition", range(len(ALONE)), ids=[scenario.name for scenario in ALONE])
def test_what_is_left_in_sql(partition: int, database: PreparedDatabase, store: KeepingStore) -> None:
    scenario, names = ALONE[partition], {"a": NAMES[partition]}
    # Log time is in milliseconds: a change at the last instant must be decided too.
    records = [*scenario.records(names), tick(names["a"], scenario.as_of_us())]
    for first in range(0, len(records), RECORDS_PER_OWNER):
        commit(store, partition, records[first : first + RECORDS_PER_OWNER])
    published = in_outbox(row for _, row in store.outbox_read(partition, 0, 1 << 30).rows)
    with database.connect() as connection:
        check(scenario, outcome_in_sql(connection, store, names, [partition], published))


def test_the_books_agree_after_all_of_it(database: PreparedDatabase) -> None:
    outcome = audit(database.admin_url)
    assert outcome.passed, outcome
