"""Transfers in SQL: the audit passes after every commit, and clearing holds the transfers in transit."""

from typing import Any

import pytest
from own_database import PreparedDatabase
from test_engine_on_sql import CATALOG, event

from billing.calculator.compiled import CompiledCalculator
from billing.catalog import load_folder
from billing.commits.commit_record import CommitRecord
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.outbox_frames import unpack_frames
from billing.engine.partition_engine import PartitionEngine
from billing.store.proofs import reports
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC

PARTITIONS = 4
SENDER, TARGET = sorted(("acct-1", "acct-2", "acct-3"), key=lambda name: partition_of(name, PARTITIONS))[::2]
CLOCK_MS = 1_795_310_103_000


class Owner:
    """Writer of one partition: decides and commits records, and returns the messages that they send."""

    def __init__(self, store: Store, account: str) -> None:
        self.store, self.partition = store, partition_of(account, PARTITIONS)
        self.epoch, state = store.acquire(self.partition)
        self.engine = PartitionEngine(state, *store.catalog(), store, CompiledCalculator())

    def take(self, topic: str, *records: tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...]]) -> list[Any]:
        start = self.engine.positions.get(topic, 0)
        taken = [PlainRecord(start + n, CLOCK_MS, *record) for n, record in enumerate(records)]
        record = self.engine.decide([InputBatch(topic, start, start + len(taken), taken)])
        self.store.commit(self.epoch, record)
        self.engine.committed()
        return messages(record)

    def order(self, kind: str, account: str, data: dict[str, object]) -> list[Any]:
        return self.take(COMMAND_TOPIC, (None, event(kind, f"urn:crm:{account}", 1, account, data, False), ()))


def messages(record: CommitRecord) -> list[Any]:
    rows = [row for row in record.outbox if row.topic == COMMAND_FORWARDED_TOPIC]
    return [(frame.key, frame.value, frame.headers) for row in rows for frame in unpack_frames(row.payload)]


def clearing(database: PreparedDatabase) -> str:
    return reports.trial_balance(database.report_url)[0].get("transfer_clearing", "0")


def problems(database: PreparedDatabase) -> list[str]:
    return [f"{one.name}: {one.shown}" for one in audit(database.report_url).checks if one.count]


@pytest.mark.parametrize("closed", [False, True], ids=["received", "returned"])
def test_the_books_add_up_between_the_halves(database: PreparedDatabase, store: Store, closed: bool) -> None:
    store.publish(load_folder(CATALOG))
    sender, target = Owner(store, SENDER), Owner(store, TARGET)
    for owner, account in ((sender, SENDER), (target, TARGET)):
        owner.order("account.opened.v1", account, {"currency": "CNY", "price_book": "retail-cn"})
    if closed:
        target.order("account.closed.v1", TARGET, {"reason": "left"})
    sender.order("package.purchased.v1", SENDER, {"plan": "token-9.9", "grant_id": "g"})
    assert (clearing(database), problems(database)) == ("0", [])
    sent = sender.order("package.transferred.v1", SENDER, {"grant_id": "g", "amount": "5000000", "to": TARGET})
    assert (clearing(database), problems(database)) == ("-4.67", [])
    back = target.take(COMMAND_FORWARDED_TOPIC, *sent)
    assert problems(database) == []
    if closed:
        assert (clearing(database), len(back)) == ("-4.67", 1)
        assert sender.take(COMMAND_FORWARDED_TOPIC, *back) == []
    assert (clearing(database), problems(database)) == ("0", [])
    stored = {row["account"]: row["remaining"] for row in reports.balances(database.report_url)}
    assert stored == ({SENDER: "10000000", TARGET: None} if closed else {SENDER: "5000000", TARGET: "5000000"})
    # The state in SQL equals the state in memory, so a new owner continues from it.
    again = Owner(store, SENDER)
    received = {account.account: account for account in store.load_accounts([SENDER, TARGET])}
    assert again.engine.positions == sender.engine.positions
    assert bool(received[TARGET].extras.received) is not closed
