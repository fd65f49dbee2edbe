"""The scenarios through the whole pipeline: Kafka, a worker, PostgreSQL, the relay, and the output topics.

Each account has a partition to itself, so that its log has the scenario's times. All scenarios run at once.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pytest
from own_database import PreparedDatabase, prepared_database
from rebuilt_accounts import Rebuilt
from scenario_files import Record, Scenario, accounts_on, catalogue, scenarios, tick
from scenario_outcome import check, outcome_in_sql
from scenario_pipeline import Pipeline, own_topics

from billing.commits.outbox_frames import Frame
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.topics import ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC, COMMAND_TOPIC, RATED_TOPIC, REJECTED_TOPIC, USAGE_TOPIC
from streams.read.readback import read_topic

YEARS = 400
"""Years added to every time of a scenario.

The calendar repeats after 400 years, weekdays and leap days included. The times must be in the future, because
forwarded records carry the broker's clock and a partition's log time never goes back.
"""
ALL = list(scenarios())
PARTITIONS = sum(len(scenario.accounts) for scenario in ALL)


def _named() -> Iterator[dict[str, str]]:
    free = iter(accounts_on(PARTITIONS))
    for scenario in ALL:
        yield {account: next(free) for account in scenario.accounts}


NAMES = list(_named())


def rounds(scenario: Scenario, names: Mapping[str, str]) -> list[list[Record]]:
    """Return the records in rounds. Before a round is sent, everything of the earlier rounds is decided.

    Usage that follows a command in the log is decided after it in any case, so it can be sent in the same round. A
    command that follows usage must wait. With several accounts, each record must wait, and time passes for the accounts
    that already have a log.
    """
    found: list[list[Record]] = []
    begun: set[str] = set()
    for record in scenario.records(dict(names), YEARS):
        if len(names) > 1:
            found += [[tick(other, record.log_us) for other in sorted(begun - {record.account})], [record]]
        elif not found or (record.topic, found[-1][-1].topic) == (COMMAND_TOPIC, USAGE_TOPIC):
            found.append([record])
        else:
            found[-1].append(record)
        if b'"account.opened.v1"' in record.value:
            begun.add(record.account)
    return [*found, [tick(name, scenario.as_of_us(YEARS)) for name in sorted(begun)]]


@dataclass(frozen=True, slots=True)
class Published:
    """The content of the output topics, as a consumer reads them."""

    events: dict[int, list[tuple[str, Frame]]]
    """Records of the rejection and account event topics, by partition."""
    rated: dict[int, int]
    """Number of rated events, by partition."""
    balances: dict[str, Any]
    """Last balance of each account."""
    rebuilt: Rebuilt
    """Wallets and buckets as rated usage and account events alone give them."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The pipeline after all records were sent."""

    database: PreparedDatabase
    store: Store
    published: Published


@pytest.fixture(scope="module")
def ran(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    with prepared_database(servers.admin_database_url, PARTITIONS) as database, Store(database.app_url) as store:
        store.publish(catalogue())
        with own_topics(servers.kafka, PARTITIONS):
            pipeline = Pipeline(servers.kafka, PARTITIONS, database, tmp_path_factory.mktemp("pipeline"))
            with pipeline.processes():
                for parts in zip_longest(*map(rounds, ALL, NAMES), fillvalue=()):
                    pipeline.decide([record for part in parts for record in part])
            published = read_published(servers.kafka)
        yield Ran(database, store, published)


def read_published(kafka: str) -> Published:
    published = Published(defaultdict(list), defaultdict(int), {}, Rebuilt())
    for topic in (REJECTED_TOPIC, ACCOUNT_EVENT_TOPIC):
        for message in read_topic(kafka, topic):
            frame = Frame(message.key(), message.value(), tuple(message.headers() or ()))
            published.events[message.partition()].append((topic, frame))
            if topic == ACCOUNT_EVENT_TOPIC:
                published.rebuilt.add_notices([json.loads(message.value())])
    for message in read_topic(kafka, RATED_TOPIC):
        event = json.loads(message.value())
        published.rated[message.partition()] += len(event["data"]["events"])
        published.rebuilt.add_usage([event])
    for message in read_topic(kafka, BALANCE_TOPIC):
        published.balances[message.key().decode()] = json.loads(message.value())["data"]
    return published


@pytest.mark.parametrize("number", range(len(ALL)), ids=[scenario.name for scenario in ALL])
def test_what_is_left_in_the_pipeline(number: int, ran: Ran) -> None:
    scenario, names, published = ALL[number], NAMES[number], ran.published
    partitions = [partition_of(name, PARTITIONS) for name in names.values()]
    events = [one for partition in partitions for one in published.events.get(partition, [])]
    with ran.database.connect() as connection:
        outcome = outcome_in_sql(connection, ran.store, names, partitions, events)
    check(scenario, outcome)
    for name, account in outcome.accounts.items():
        balance = published.balances[names[name]]
        buckets = [bucket | {"reserved": "0"} for bucket in balance["buckets"]]
        assert balance | {"buckets": buckets} == balance | {"account": names[name]} | account
        assert published.rebuilt.accounts[names[name]].differences(account) == []
    rated = sum(published.rated.get(partition, 0) for partition in partitions)
    assert outcome.events.startswith(f"{rated} rated ")


def test_the_books_agree_after_all_of_it(ran: Ran) -> None:
    outcome = audit(ran.database.admin_url)
    assert outcome.passed, outcome
