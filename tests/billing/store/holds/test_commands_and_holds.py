"""Commands and holds on PostgreSQL: what is held cannot be taken away, whichever comes first; every replay agrees."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from billing_samples import catalog, plan
from own_database import PreparedDatabase
from test_hold_races import DIMENSIONS, MINUTE_US, Processes

from billing.accounts.held import NOTHING
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord, PositionMove, Record
from billing.commits.outbox_frames import unpack_batches
from billing.corrections.history import AccountHistory, DecidedBatches, decided_batches, histories
from billing.engine.partition_engine import PartitionEngine
from billing.engine.past_account import PartitionHistory, account_in_past
from billing.errors import HeldMoved
from billing.log_time import TimeLimits
from billing.record_keys import own_header
from billing.reservations.hold import HOLD_OPEN, RESERVATION, Hold, Terms
from billing.reservations.operations import Operation, Settled, release, reserve, settle
from billing.store.holds.hold_book import HoldBook
from billing.store.past_commits import decisions
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.refusals import Refusal
from schemas.times import DAY_US, format_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC, COMMAND_TOPIC, USAGE_TOPIC
from schemas.units import format_micro, format_pico

YUAN = 10**12
ONCE = {"kind": "once"}
CATALOG = catalog(
    plan("A", cycle=ONCE, overage="pay_as_you_go"),
    plan("weekly", overage="pay_as_you_go", priority=200),
    plan("dearer", amount="200", price="212.00", overage="pay_as_you_go", priority=200),
)
"""A token costs 1.06 yuan and is one standard token; each plan has 100 or 200 of them for 106 or 212 yuan."""


class KeepingStore(Store):
    """A store that keeps the decided batches, from which the histories of corrections come."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.decided: list[DecidedBatches] = []

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory]:
        return histories(self.decided, accounts)


class Writer:
    """Writer of partition 0 that keeps the log, with the present as log time."""

    def __init__(self, store: KeepingStore) -> None:
        self.store, self.log = store, dict[str, list[Record]]()
        self.number = 0
        self.take_over()

    def take_over(self) -> None:
        """Load the partition from SQL, as after a commit that was refused."""
        self.epoch, state = self.store.acquire(0)
        self.catalog_epoch, self.catalog = self.store.catalog()
        self.state, limits = state, TimeLimits()
        self.engine = PartitionEngine(state, self.catalog_epoch, self.catalog, self.store, CompiledCalculator(), limits)

    def batch(self, topic: str, *values: bytes) -> InputBatch:
        log = self.log.setdefault(topic, [])
        start = len(log)
        for n, value in enumerate(values):
            headers = (own_header(self.store.record_keys(), topic, None, value, ()),)  # as the API marks its usage
            log.append(PlainRecord(start + n, time.time_ns() // 10**6, None, value, headers))
        return InputBatch(topic, start, len(log), log[start:])

    def command(self, kind: str, data: dict[str, Any], account: str = "a") -> bytes:
        self.number += 1
        envelope = {"specversion": "1.0", "type": kind, "source": "crm", "id": f"c{self.number}", "subject": account}
        return json.dumps({**envelope, "time": format_time_us(time.time_ns() // 1000), "data": data}).encode()

    def decide(self, *batches: InputBatch) -> CommitRecord:
        self.batches = batches
        return self.engine.decide(batches)

    def commit(self, record: CommitRecord) -> None:
        self.store.commit(self.epoch, record)
        self.store.decided.append(
            decided_batches(
                self.catalog_epoch, self.catalog, TimeLimits(), self.state.log_time_us, self.batches, record
            )
        )
        self.engine.committed()

    def order(self, kind: str, data: dict[str, Any], account: str = "a") -> str:
        """Decide and commit one command; return ``accepted`` or the reason of its refusal."""
        record = self.decide(self.batch(COMMAND_TOPIC, self.command(kind, data, account)))
        self.commit(record)
        return outcomes(record)[0][0]

    def use(self, *events: str) -> CommitRecord:
        record = self.decide(self.batch(USAGE_TOPIC, *(event.encode() for event in events)))
        self.commit(record)
        return record

    def read(self, move: PositionMove) -> Sequence[Record]:
        return self.log[move.topic][move.start : move.end]


def outcomes(record: CommitRecord) -> list[tuple[str, str]]:
    found = []
    for row in record.outbox:
        if row.topic == ACCOUNT_EVENT_TOPIC:
            for frame in unpack_batches(row.payload):
                body = json.loads(frame.value or b"")
                if body["type"] in ("command.accepted.v1", "command.rejected.v1"):
                    found.append((body["data"].get("reason", "accepted"), body["data"].get("detail", "")))
    return found


def problems(database: PreparedDatabase) -> list[str]:
    return [f"{one.name}: {one.shown}" for one in audit(database.report_url).checks if one.count]


@pytest.fixture
def store(database: PreparedDatabase) -> Iterator[KeepingStore]:
    with closing(KeepingStore(database.app_url)) as opened:
        yield opened


@pytest.fixture
def writer(store: KeepingStore) -> Writer:
    """Account ``a`` with 106 yuan and package ``g`` of 100 tokens, and account ``b``."""
    store.publish(CATALOG)
    made = Writer(store)
    for name in "ab":
        assert made.order("account.opened.v1", {"currency": "CNY"}, name) == "accepted"
    assert made.order("wallet.topped_up.v1", {"amount": "106", "payment_ref": "p"}) == "accepted"
    assert made.order("package.purchased.v1", {"plan": "A", "grant_id": "g"}) == "accepted"
    return made


@pytest.fixture
def book(database: PreparedDatabase, writer: Writer) -> Iterator[Processes]:
    with closing(Processes(database.app_url)) as made:
        yield made


def reserving(name: str, tokens: int, account: str = "a", lasts_us: int = 5 * MINUTE_US) -> Operation:
    asked = Hold(name, account, RESERVATION, HOLD_OPEN, NOTHING, Terms(DIMENSIONS), 0, 0)
    return Operation(
        account, (name,), lambda context: reserve(context, asked, (("input", tokens),), lasts_us, name, False)
    )


def settling(name: str, tokens: int, account: str = "a") -> Operation:
    return Operation(
        account,
        (name, f"{name}/final"),
        lambda context: settle(context, name, (("input", tokens),), "final", "s", final=True),
    )


def held(book: Processes, name: str, tokens: int, **more: Any) -> Hold:
    hold: Hold = book.transact([reserving(name, tokens, **more)])[0]
    assert isinstance(hold, Hold), hold
    return hold


def settled(book: Processes, writer: Writer, name: str, tokens: int) -> None:
    done: Settled = book.transact([settling(name, tokens)])[0]
    assert isinstance(done, Settled), done
    assert writer.use(done.event).counts.rated == 1


def wallet(store: Store, name: str = "a") -> int:
    return store.load_accounts([name])[0].wallet_pico


BUCKET_TAKERS = [
    ("package.transferred.v1", {"grant_id": "g", "amount": "100", "to": "b"}),
    ("package.transferred.v1", {"grant_id": "g", "amount": "10.000001", "to": "b"}),
    ("package.refunded.v1", {"grant_id": "g", "reason": "r"}),
    ("balance.adjusted.v1", {"target": "g", "amount": "-11", "reason": "r", "requested_by": "x", "approved_by": "y"}),
    ("account.closed.v1", {"reason": "r"}),
]
WALLET_TAKERS = [
    ("package.purchased.v1", {"plan": "weekly", "grant_id": "h", "pay_from": "wallet"}),
    ("subscription.started.v1", {"plan": "weekly", "subscription_id": "s", "pay_from": "wallet"}),
    ("balance.adjusted.v1",
     {"target": "wallet", "amount": "-0.01", "reason": "r", "requested_by": "x", "approved_by": "y"}),
    ("account.closed.v1", {"reason": "r"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "data"), BUCKET_TAKERS)
def test_a_command_leaves_what_is_held_of_a_bucket(
    database: PreparedDatabase, store: Store, writer: Writer, book: Processes, kind: str, data: dict[str, Any]
) -> None:
    held(book, "r", 90)
    record = writer.decide(writer.batch(COMMAND_TOPIC, writer.command(kind, data)))
    writer.commit(record)
    [(reason, detail)] = outcomes(record)
    assert reason == "held" and ("90 of bucket 'g/1' is held" in detail or "1 open hold" in detail), detail
    [account] = store.load_accounts(["a"])
    assert (account.status, account.buckets[0].amount_micro, account.extras.refunds) == ("open", 100 * 10**6, {})
    settled(book, writer, "r", 90)
    [account] = store.load_accounts(["a"])
    assert (account.wallet_pico, account.buckets[0].remaining_micro) == (106 * YUAN, 10 * 10**6)
    assert problems(database) == []


@pytest.mark.parametrize(("kind", "data"), WALLET_TAKERS)
def test_a_command_leaves_what_is_held_of_the_wallet(
    database: PreparedDatabase, store: Store, writer: Writer, book: Processes, kind: str, data: dict[str, Any]
) -> None:
    assert held(book, "r", 200).held.wallet_pico == 106 * YUAN
    assert writer.order(kind, data) == "held"
    assert writer.order("wallet.topped_up.v1", {"amount": "1", "payment_ref": "q"}) == "accepted"
    settled(book, writer, "r", 200)
    assert wallet(store) == 1 * YUAN
    assert problems(database) == []


def test_what_is_not_held_may_be_taken(writer: Writer, book: Processes) -> None:
    held(book, "r", 90)
    assert writer.order("package.transferred.v1", {"grant_id": "g", "amount": "10", "to": "b"}) == "accepted"
    assert writer.order("package.transferred.v1", {"grant_id": "g", "amount": "0.000001", "to": "b"}) == "held"
    bought = {"plan": "weekly", "grant_id": "h", "pay_from": "wallet"}
    assert writer.order("package.purchased.v1", bought) == "accepted"
    book.transact([Operation("a", ("r",), lambda context: release(context, "r"))])
    assert writer.order("package.transferred.v1", {"grant_id": "g", "amount": "90", "to": "b"}) == "accepted"


def test_a_subscription_leaves_what_is_held_of_its_cycle(writer: Writer, book: Processes) -> None:
    started = {"plan": "weekly", "subscription_id": "s"}
    assert writer.order("subscription.started.v1", started) == "accepted"
    held(book, "r", 150)  # 100 of the package and 50 of the cycle
    for kind, data in [
        ("subscription.cancelled.v1", {"subscription_id": "s", "immediately": True}),
        ("subscription.suspended.v1", {"subscription_id": "s"}),
        ("subscription.changed.v1", {"subscription_id": "s", "plan": "dearer", "effective": "now"}),
        ("package.refunded.v1", {"grant_id": "s/1", "reason": "r"}),
    ]:
        assert writer.order(kind, data) == "held", kind
    assert writer.order("subscription.cancelled.v1", {"subscription_id": "s"}) == "accepted", "at the cycle's end"


def test_a_lower_credit_limit_leaves_what_is_held(store: Store, writer: Writer, book: Processes) -> None:
    assert writer.order("credit.changed.v1", {"credit_limit": "53"}) == "accepted"
    held(book, "r", 250)
    assert writer.order("credit.changed.v1", {"credit_limit": "52.99"}) == "held"
    assert writer.order("credit.changed.v1", {"credit_limit": "54"}) == "accepted"
    settled(book, writer, "r", 250)
    assert wallet(store) == -53 * YUAN


def test_a_hold_taken_while_a_command_is_decided_is_left_too(
    database: PreparedDatabase, store: Store, writer: Writer, book: Processes
) -> None:
    """The commit reads what is held again, under the lock of the account, and writes nothing."""
    batch = writer.batch(COMMAND_TOPIC, writer.command("package.refunded.v1", {"grant_id": "g", "reason": "r"}))
    record = writer.decide(batch)
    assert outcomes(record) == [("accepted", "")]
    held(book, "r", 90)
    with pytest.raises(HeldMoved, match=r"account 'a': 90 of bucket 'g/1' is held"):
        writer.commit(record)
    writer.take_over()
    again = writer.decide(batch)
    writer.commit(again)
    assert outcomes(again)[0][0] == "held"
    settled(book, writer, "r", 90)
    assert wallet(store) == 106 * YUAN
    assert problems(database) == []


def test_an_account_with_an_open_hold_that_holds_nothing_is_not_closed(writer: Writer, book: Processes) -> None:
    """A charging session holds nothing itself, and its usage needs the account."""
    record = writer.decide(writer.batch(COMMAND_TOPIC, writer.command("account.closed.v1", {"reason": "r"}, "b")))
    empty = Hold("session", "b", "charging", HOLD_OPEN, NOTHING, Terms({}), 0, 0)

    def open_one(context: Any) -> None:
        context.put(
            Hold(*(empty.reservation_id, "b", empty.kind, HOLD_OPEN, NOTHING, empty.terms, 0, context.now_us + DAY_US))
        )

    book.transact([Operation("b", (), open_one)])
    with pytest.raises(HeldMoved, match="1 open hold"):
        writer.commit(record)


def test_what_a_commit_read_is_recorded_and_every_replay_decides_the_same(
    database: PreparedDatabase, store: Store, writer: Writer, book: Processes
) -> None:
    """The holds are gone, and the log with the record leads to the same account."""
    held(book, "r", 90)
    held(book, "money", 20)
    batch = writer.batch(
        COMMAND_TOPIC,
        writer.command("package.transferred.v1", {"grant_id": "g", "amount": "11", "to": "b"}),
        writer.command("package.transferred.v1", {"grant_id": "g", "amount": "0.5", "to": "b"}),
        writer.command("wallet.topped_up.v1", {"amount": "5", "payment_ref": "r"}),
        writer.command("balance.adjusted.v1", {
            "target": "wallet", "amount": "-100.41", "reason": "r", "requested_by": "x", "approved_by": "y"}),
    )  # fmt: skip
    record = writer.decide(batch)
    writer.commit(record)
    assert [reason for reason, _ in outcomes(record)] == ["held", "held", "accepted", "held"]
    rows = database.run("SELECT account, kind, bucket, amount FROM command_held WHERE kind <> 'until' ORDER BY row_no")
    assert rows == [("a", "holds", "", 2), ("a", "wallet", "", 106 * YUAN // 10), ("a", "bucket", "g/1", 100 * 10**6)]
    database.run("DELETE FROM hold")
    assert writer.order("package.transferred.v1", {"grant_id": "g", "amount": "0.5", "to": "b"}) == "accepted"
    commits, catalogs = decisions(store._database, 0)
    for calculator in (PlainCalculator(), CompiledCalculator()):
        history = PartitionHistory(0, 4, commits, catalogs, writer.read, writer.store.record_keys())
        replayed, _ = account_in_past(history, "a", calculator)
        [stored] = store.load_accounts(["a"])
        assert replayed is not None
        assert (replayed.wallet_pico, replayed.buckets) == (stored.wallet_pico, stored.buckets)
    assert problems(database) == []
    database.run("ALTER TABLE command_held DISABLE TRIGGER append_only", "UPDATE command_held SET amount = amount + 1")
    assert any("digest does not match" in one for one in problems(database))


def usage(writer: Writer, id_: str, tokens: int) -> None:
    envelope = {"specversion": "1.0", "type": "token.usage.v1", "source": "w", "id": id_, "subject": "a"}
    data = {"model": "m", "usage": {"input": tokens}}
    writer.use(json.dumps({**envelope, "time": format_time_us(time.time_ns() // 1000), "data": data}))


def test_a_top_up_pays_an_unpaid_renewal_with_money_that_is_not_held(
    database: PreparedDatabase, store: KeepingStore, writer: Writer, book: Processes
) -> None:
    """The top-up is accepted. A correction decides it again long after the hold has ended, with the same result."""
    started = {"plan": "weekly", "subscription_id": "s", "pay_from": "wallet"}
    begun = format_time_us(time.time_ns() // 1000 - 8 * DAY_US)  # the second cycle has begun and cannot be paid
    assert writer.order("subscription.started.v1", {**started, "starts_at": begun}) == "accepted"
    assert writer.order("wallet.topped_up.v1", {"amount": "53", "payment_ref": "q"}) == "accepted"
    held(book, "r", 150)
    assert writer.order("wallet.topped_up.v1", {"amount": "60", "payment_ref": "t"}) == "accepted"
    [account] = store.load_accounts(["a"])
    assert (account.wallet_pico, account.extras.subscriptions[0].status) == (113 * YUAN, "unpaid")
    settled(book, writer, "r", 150)
    usage(writer, "u", 1)
    assert writer.order("usage.voided.v1", {"source": "w", "id": "u", "reason": "r"}) == "accepted"
    assert wallet(store) == 60 * YUAN
    assert writer.order("wallet.topped_up.v1", {"amount": "46", "payment_ref": "v"}) == "accepted"
    [account] = store.load_accounts(["a"])
    assert (account.wallet_pico, account.extras.subscriptions[0].status) == (0, "active")
    assert problems(database) == []


def test_what_usage_burned_is_held_elsewhere(store: Store, writer: Writer, book: Processes) -> None:
    """Usage without a reservation empties the package that a hold counts on, so the hold needs the wallet."""
    held(book, "r", 100)
    usage(writer, "u", 100)
    bought = {"plan": "weekly", "grant_id": "h", "pay_from": "wallet"}
    assert writer.order("package.purchased.v1", bought) == "held"
    settled(book, writer, "r", 100)
    assert wallet(store) == 0


def test_a_renewal_during_a_hold_takes_nothing_that_is_held(store: Store, writer: Writer, book: Processes) -> None:
    """The fee that falls due while the usage may still be burned is not granted to a reservation."""
    started = {"plan": "weekly", "subscription_id": "s", "pay_from": "wallet"}
    now_us = time.time_ns() // 1000
    almost = format_time_us(now_us - 7 * DAY_US + 10 * MINUTE_US)  # the next cycle begins in ten minutes
    assert writer.order("wallet.topped_up.v1", {"amount": "106", "payment_ref": "q"}) == "accepted"
    assert writer.order("subscription.started.v1", {**started, "starts_at": almost}) == "accepted"
    refused = book.transact([reserving("r", 201)])[0]
    assert isinstance(refused, Refusal) and "106 that renewals take meanwhile" in refused.detail
    held(book, "r", 200)
    assert writer.order("wallet.topped_up.v1", {"amount": "53", "payment_ref": "t"}) == "accepted"
    held(book, "more", 50)


def test_a_settlement_in_suspense_holds_nothing_and_is_not_sent_again(
    database: PreparedDatabase, writer: Writer, book: Processes
) -> None:
    """Its event has no price. Only the very event of the hold releases it."""
    held(book, "r", 90)
    done: Settled = book.transact([settling("r", 90)])[0]
    wrong = done.event.replace('"model":"m"', '"model":"nobody\'s"')
    assert writer.use(wrong).counts.rejected == 1
    assert ("r/final", "open") in database.run("SELECT reservation_id, state FROM hold"), "another event under its name"
    database.run("UPDATE hold SET event = replace(event, '\"m\"', '\"nobody''s\"')")
    assert writer.use(wrong).counts.rejected == 1
    assert database.run("SELECT reservation_id, state FROM hold ORDER BY 1") == [
        ("r", "released"),
        ("r/final", "released"),
    ]
    database.run("UPDATE hold SET created_us = 5")
    assert book.ask(HoldBook.clean) == []
    again = book.transact([settling("r", 90)])[0]
    assert again.decided and again.event == wrong
    assert writer.order("account.closed.v1", {"reason": "r"}) == "accepted"


def free_parts(database: PreparedDatabase) -> tuple[int, int]:
    """Return what account ``a`` has and does not hold, read in one snapshot: of the wallet (pico), of the package
    (micro)."""
    [(wallet_pico, micro)] = database.run(
        "SELECT a.wallet_pico - coalesce(sum(h.wallet_pico), 0),"
        " b.remaining_micro - coalesce(sum(coalesce((h.held_micro->>'g/1')::numeric, 0)), 0)"
        " FROM account AS a JOIN bucket AS b USING (account) LEFT JOIN hold AS h ON h.account = 'a' AND state = 'open'"
        " WHERE a.account = 'a' GROUP BY a.wallet_pico, b.remaining_micro"
    )
    return int(wallet_pico), int(micro)


def test_holds_and_commands_of_many_never_take_from_each_other(
    database: PreparedDatabase, store: Store, writer: Writer, book: Processes
) -> None:
    """Clients reserve and settle while a writer carries out commands that take.

    What is free never falls below zero in any snapshot, nor does the wallet. All usage is reserved, at one price.
    """
    events: list[str] = []
    stop = False

    def client(number: int) -> int:
        chance, granted = random.Random(number), 0
        turn = 0
        while not stop:
            turn += 1
            name, tokens = f"{number}-{turn}", chance.randrange(1, 20)
            if isinstance(book.transact([reserving(name, tokens)])[0], Hold):
                granted += 1
                time.sleep(chance.random() / 50)
                done = book.transact([settling(name, tokens)])[0]
                assert done.problem is None
                events.append(done.event)
        return granted

    moved, taken, taking = 0, 0, False
    chance = random.Random(7)
    adjust = {"reason": "r", "requested_by": "x", "approved_by": "y"}
    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(client, number) for number in range(4)]
        deadline = time.monotonic() + 12
        try:
            while time.monotonic() < deadline:
                # In turn all that is free is taken, so that a hold taken meanwhile is one too many, or more is added.
                free_pico, free_micro = free_parts(database)
                taking = not taking
                changes = [("wallet", format_pico(-free_pico)), ("g", format_micro(-free_micro))]
                if not taking:
                    changes = [(target, str(chance.randrange(20, 60))) for target in ("wallet", "g")]
                commands = [
                    writer.command("balance.adjusted.v1", {"target": target, "amount": amount, **adjust})
                    for target, amount in changes
                ]
                burned = [events.pop(0) for _ in range(len(events))]
                batches = [writer.batch(COMMAND_TOPIC, *commands)]
                if burned:
                    batches.append(writer.batch(USAGE_TOPIC, *(event.encode() for event in burned)))
                while True:
                    record = writer.decide(*batches)
                    time.sleep(chance.random() / 100)
                    try:
                        writer.commit(record)
                        break
                    except HeldMoved:
                        moved += 1
                        writer.take_over()
                assert record.counts.rejected == 0
                taken += sum(reason == "accepted" for reason, _ in outcomes(record)) if taking else 0
                wallet_pico, micro = free_parts(database)
                assert wallet(store) >= 0 and wallet_pico + micro * 1_060_000 >= 0
        finally:
            stop = True
        granted = sum(one.result() for one in clients)
    if events:
        writer.use(*events)
    assert wallet(store) >= 0 and granted > 20 and taken + moved > 3, (granted, taken, moved)
    assert problems(database) == []
