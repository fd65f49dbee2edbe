"""Concurrency of holds on PostgreSQL: grants never exceed the balance, in any order of operations and commits."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from threading import Barrier, BrokenBarrierError, local
from time import monotonic
from typing import Any, TypeVar

import psycopg
import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.accounts.held import NOTHING, HeldAmounts
from billing.reservations.hold import HOLD_OPEN, RESERVATION, Hold, Terms
from billing.reservations.operations import HoldContext, Operation, extend, find, release, reserve, settle
from billing.store.holds.hold_book import HoldBook
from billing.store.proofs import reports
from billing.store.store import Store
from schemas.refusals import Refusal

T = TypeVar("T")

CLIENTS = 16
DIMENSIONS = {
    "model": "m",
    "hardware_tier": "unknown",
    "energy_source": "unknown",
    "site": "unknown",
    "channel": "cloud",
    "service_tier": "standard",
    "outcome": "completed",
}
MINUTE_US = 60_000_000
PICO_A_TOKEN = 2 * 10**6  # two yuan per million tokens


class UnlockedBook(HoldBook):
    """A HoldBook without the account lock. It proves that the test detects a missing lock."""

    LOCK_HEADS = "SELECT FROM hold_head WHERE account = ANY ($1::text[])"


class Processes:
    """Simulated API processes, one per calling thread.

    Each has a HoldBook, an event loop and connections of its own, so only the lock in SQL serializes them.
    """

    def __init__(self, database_url: str, kind: type[HoldBook] = HoldBook) -> None:
        self._url, self._kind = database_url, kind
        self._mine = local()
        self._all: list[tuple[asyncio.Runner, HoldBook]] = []

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        return self.ask(lambda book: book.transact(operations))

    def ask(self, question: Callable[[HoldBook], Coroutine[Any, Any, T]]) -> T:
        if not hasattr(self._mine, "book"):
            self._mine.runner, self._mine.book = asyncio.Runner(), self._kind(self._url)
            self._all.append((self._mine.runner, self._mine.book))
        return self._mine.runner.run(question(self._mine.book))

    def close(self) -> None:
        for runner, book in self._all:
            runner.run(book.close())
            runner.close()


@pytest.fixture
def rich(database: PreparedDatabase, store: Store, publish_samples: Callable[[Store], None]) -> PreparedDatabase:
    """Three accounts of one partition, each with 20 yuan and an expired bucket. A token costs 0.000002 yuan."""
    publish_samples(store)
    made = Books()
    made.catalog_epoch = store.catalog_epoch()
    epoch, _ = store.acquire(0)
    store.commit(epoch, made.opening(["a", "b", "c"]))
    return database


@pytest.fixture
def book(rich: PreparedDatabase) -> Iterator[Processes]:
    with closing(Processes(rich.app_url)) as made:
        yield made


def reserving(
    name: str, tokens: int, of: str = "a", meet: Callable[[], None] | None = None, key: str = "k"
) -> Operation:
    def decide(context: HoldContext) -> Any:
        if meet is not None:
            meet()
        hold = Hold(name, of, RESERVATION, HOLD_OPEN, NOTHING, Terms(DIMENSIONS), 0, 0)
        return reserve(context, hold, (("input", tokens),), MINUTE_US, key, False)

    return Operation(of, (name,), decide)


def held_pico(database: PreparedDatabase, of: str = "a") -> int:
    return int(
        database.run(f"SELECT coalesce(sum(wallet_pico), 0) FROM hold WHERE state = 'open' AND account = '{of}'")[0][0]
    )


@pytest.mark.parametrize("locked", [True, False])
def test_two_at_once_overspend_only_without_the_lock(rich: PreparedDatabase, locked: bool) -> None:
    """Two operations wait for each other between reading and writing.

    With the lock, the second cannot read before the first has written. Without it, both read the same balance, and each
    takes 15 of 20 yuan.
    """
    both_have_read = Barrier(2)

    def meet() -> None:
        try:
            both_have_read.wait(1.0)
        except BrokenBarrierError:
            assert locked, "without the lock both are in at once"

    with closing(Processes(rich.app_url, HoldBook if locked else UnlockedBook)) as made:
        made.transact([reserving("first", 1)])  # creates the head of the account: inserting it would lock too
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(made.transact, [reserving(name, 7_500_000, meet=meet)]) for name in ("x", "y")]
            granted = [one.result()[0] for one in asked]
    refused = [one for one in granted if isinstance(one, Refusal)]
    overspent = held_pico(rich) > 20 * 10**12
    assert overspent == (not locked)
    assert [one.code for one in refused] == (["insufficient_balance"] if locked else [])


def test_sixteen_clients_never_hold_more_than_there_is(rich: PreparedDatabase, book: Processes) -> None:
    """Each client repeatedly reserves an eighth of an account, with releases and extensions in between."""
    tokens = 20 * 10**12 // PICO_A_TOKEN // 8

    more = (("input", tokens),)

    def client(number: int) -> int:
        granted = 0
        for turn in range(20):
            of = "abc"[(number + turn) % 3]
            name = f"{number}-{turn}"
            # One transaction with operations of two accounts, in either order, must not deadlock.
            other = "abc"[(number + turn + 1) % 3]
            answers = book.transact([reserving(name, tokens, of), reserving(name + "'", tokens, other)])
            granted += sum(isinstance(answer, Hold) for answer in answers)
            if turn % 3 == 0:
                book.transact([Operation(of, (name,), lambda context, name=name: release(context, name))])
            elif turn % 3 == 1:
                key = f"{name}+"
                book.transact(
                    [Operation(of, (name,), lambda s, name=name, key=key: extend(s, name, more, None, key, key))]
                )
        return granted

    with ThreadPoolExecutor(CLIENTS) as threads:
        assert sum(threads.map(client, range(CLIENTS))) >= 24
    for of in "abc":
        assert held_pico(rich, of) <= 20 * 10**12
    # Nothing is lost either: the whole free balance can be held, to the last token.
    free_tokens = (20 * 10**12 - held_pico(rich, "a")) // PICO_A_TOKEN
    if free_tokens:
        assert isinstance(book.transact([reserving("last", free_tokens)])[0], Hold)
    assert isinstance(book.transact([reserving("over", 1)])[0], Refusal)


def test_a_burn_is_seen_with_the_end_of_its_hold_or_not_at_all(rich: PreparedDatabase, book: Processes) -> None:
    """A commit repeatedly lowers the balance and closes the hold in one transaction.

    Meanwhile another thread reads balance and holds: the held money must never appear free.
    """
    tokens = 1_000_000
    with ThreadPoolExecutor(1) as threads:
        stop = False

        def ask() -> int:
            asked = 0
            while not stop:

                def decide(context: HoldContext) -> tuple[int, int]:
                    assert context.account is not None
                    return context.account.wallet_pico, context.held.wallet_pico

                wallet_pico, held = book.transact([Operation("a", (), decide)])[0]
                # Before the commit a hold reserves the money, after it the money is spent: 2 yuan are never free.
                assert wallet_pico - held <= 18 * 10**12, (wallet_pico, held)
                asked += 1
            return asked

        book.transact([reserving("r0", tokens)])
        asked = threads.submit(ask)
        with rich.connect() as connection:
            for number in range(60):
                with connection.transaction():
                    connection.execute(
                        "UPDATE account SET wallet_pico = wallet_pico - 2000000000000 WHERE account = 'a'"
                    )
                    connection.execute(f"UPDATE hold SET state = 'closed' WHERE reservation_id = 'r{number}'")
                with connection.transaction():
                    # Reset in one transaction: the money returns together with a new hold.
                    connection.execute(
                        "UPDATE account SET wallet_pico = wallet_pico + 2000000000000 WHERE account = 'a'"
                    )
                    connection.execute(
                        f"INSERT INTO hold SELECT 'r{number + 1}', account, kind, 'open', held_micro, wallet_pico,"
                        " terms, steps, event, sent_again, created_us, expires_us FROM hold"
                        f" WHERE reservation_id = 'r{number}'"
                    )
        stop = True
        assert asked.result() > 10


def test_the_commit_that_burns_usage_naming_a_hold_closes_it(
    rich: PreparedDatabase, store: Store, book: Processes
) -> None:
    for name in ("x", "y"):
        assert isinstance(book.transact([reserving(name, 10)])[0], Hold)
    assert isinstance(book.transact([reserving("of-b", 10, "b")])[0], Hold)
    books = Books(1)
    books.catalog_epoch = store.catalog_epoch()
    epoch, _ = store.acquire(1)
    named = [("a", "y"), ("a", "x"), ("a", "of-b"), ("a", "no")]
    store.commit(epoch, replace(books.opening(["d"]), reservations_closed=named))
    states = dict(rich.run("SELECT reservation_id, state FROM hold"))
    assert states == {"x": "closed", "y": "closed", "of-b": "open"}


def test_a_repeated_request_finds_what_it_made(book: Processes) -> None:
    first = book.transact([reserving("x", 10)])[0]
    assert book.transact([reserving("x", 10)])[0] == first
    other = book.transact([reserving("x", 11, key="other")])[0]
    assert isinstance(other, Refusal) and other.code == "idempotency_key_reused"
    assert book.ask(lambda b: b.find_account("x")) == "a" and book.ask(lambda b: b.find_account("y")) is None


def test_an_expired_hold_counts_no_more_and_goes_after_a_day(rich: PreparedDatabase, book: Processes) -> None:
    assert isinstance(book.transact([reserving("x", 10_000_000)])[0], Hold)
    assert isinstance(book.transact([reserving("y", 1)])[0], Refusal)
    rich.run("UPDATE hold SET expires_us = expires_us - 60000000")
    assert isinstance(book.transact([reserving("y", 10_000_000)])[0], Hold)
    used = Operation("a", ("x", "x/1"), lambda s: settle(s, "x", (("input", 3),), "1", "1", final=True))
    late = book.transact([used])[0]
    assert late.problem.code == "reservation_expired" and '"usage":{"input":3}' in late.event
    assert book.ask(HoldBook.clean) == []
    rich.run("UPDATE hold SET created_us = created_us - 61000000 WHERE event IS NOT NULL")
    assert book.ask(HoldBook.clean) == [late.event], "its commit was not seen: it is sent again"
    assert book.ask(HoldBook.clean) == [], "once"
    rich.run("UPDATE hold SET expires_us = 5")
    book.ask(HoldBook.clean)
    assert rich.run("SELECT * FROM hold") == []


def test_a_settlement_is_recognised_for_as_long_as_its_hold_is_kept(rich: PreparedDatabase, book: Processes) -> None:
    """Its own hold expired days ago. Without it, the usage would be recorded once more."""
    lasting = 30 * 24 * 60 * MINUTE_US
    hold = Hold("x", "a", RESERVATION, HOLD_OPEN, NOTHING, Terms(DIMENSIONS), 0, 0)
    asked = Operation("a", ("x",), lambda s: reserve(s, hold, (("input", 10),), lasting, "k", False))
    assert isinstance(book.transact([asked])[0], Hold)
    used = Operation("a", ("x", "x/1"), lambda s: settle(s, "x", (("input", 3),), "1", "1", final=False))
    first = book.transact([used])[0]
    rich.run("UPDATE hold SET state = 'closed', expires_us = 5 WHERE reservation_id = 'x/1'")
    assert book.ask(HoldBook.clean) == []
    assert book.transact([used])[0].event == first.event and book.transact([used])[0].decided
    rich.run("UPDATE hold SET expires_us = 6 WHERE reservation_id = 'x'")
    book.ask(HoldBook.clean)
    assert rich.run("SELECT * FROM hold") == []


def test_a_settlement_is_sent_again_until_kafka_has_it(rich: PreparedDatabase, book: Processes) -> None:
    book.transact([reserving("x", 10)])
    used = Operation("a", ("x", "x/1"), lambda s: settle(s, "x", (("input", 3),), "1", "1", final=True))
    sent = book.transact([used])[0].event
    rich.run("UPDATE hold SET created_us = created_us - 61000000")
    assert book.ask(HoldBook.clean) == [sent]
    assert book.ask(HoldBook.clean) == [], "another process may be sending it"
    rich.run("UPDATE hold SET send_after_us = send_after_us - 301000000 WHERE event IS NOT NULL")
    assert book.ask(HoldBook.clean) == [sent], "that process may have died"
    book.ask(lambda one: one.sent_again(["x/1"]))
    rich.run("UPDATE hold SET send_after_us = 0")
    assert book.ask(HoldBook.clean) == []


def test_reports_say_what_is_reserved_now(rich: PreparedDatabase, store: Store, book: Processes) -> None:
    def put(context: HoldContext) -> None:
        for name, micro, lasts_us in (("x", 10**6, MINUTE_US), ("y", 5 * 10**5, MINUTE_US), ("late", 10**6, 0)):
            held = HeldAmounts({"g1/1": micro})
            expires_us = context.now_us + lasts_us
            context.put(Hold(name, "b", RESERVATION, HOLD_OPEN, held, Terms(DIMENSIONS), context.now_us, expires_us))

    book.transact([Operation("b", (), put)])
    rows = {row["account"]: row["reserved"] for row in reports.balances(rich.report_url)}
    assert rows == {"a": "0", "b": "1.5", "c": "0"}


def test_a_new_catalogue_is_used_at_once(store: Store, book: Processes, catalog_of: Callable[..., Any]) -> None:
    before = book.transact([reserving("x", 10)])[0]
    store.publish(catalog_of((2, "2026-11-02T00:00:00+08:00", "4")))
    after = book.transact([reserving("y", 10)])[0]
    assert after.held.wallet_pico == 2 * before.held.wallet_pico


def test_the_account_is_read_as_the_worker_reads_it(rich: PreparedDatabase, store: Store, book: Processes) -> None:
    rich.run("UPDATE bucket SET lapse_at_us = NULL", """UPDATE account SET extras = '{"gift_pico": 7}'""")
    seen = book.transact([Operation("b", (), lambda context: context.account)])[0]
    assert seen.extras.gift_pico == 7 and len(seen.buckets) == 1
    assert [seen] == list(store.load_accounts(["b"]))
    unknown = book.transact([Operation("nobody", ("x",), lambda context: (context.account, find(context, "x")))])[0]
    assert unknown[0] is None and unknown[1].code == "unknown_reservation"


def test_workers_of_reports_cannot_hold_anything(rich: PreparedDatabase) -> None:
    with rich.connect("tokenbill_report") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM hold")


def test_what_was_tried_before_finds_its_hold_though_its_name_was_random(
    rich: PreparedDatabase, book: Processes
) -> None:
    """HoldBook retries if the answer to a commit was lost or the connection was already broken."""
    made = replace(reserving("random", 10), fresh=True)
    first = book.transact([made])[0]
    assert isinstance(first, Hold)
    assert book.transact([made])[0] == first, "the second insert fails, and the next try looks for the hold"
    rich.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tokenbill%holds'")
    assert book.transact([replace(reserving("next", 10), fresh=True)])[0].held == first.held
    assert book.ask(lambda one: one.find_account("next")) == "a"
    assert held_pico(rich) == 2 * first.held.wallet_pico


def test_one_key_for_two_accounts_at_once_makes_one_hold(rich: PreparedDatabase, book: Processes) -> None:
    """The accounts have separate heads, so both operations run at once and neither sees the hold of the other."""
    both_have_read = Barrier(2)

    def meet() -> None:
        with suppress(BrokenBarrierError):
            both_have_read.wait(1.0)

    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(book.transact, [reserving("x", 10, of, meet, key=of)]) for of in "ab"]
        answers = [one.result()[0] for one in asked]
    [refused] = [answer for answer in answers if isinstance(answer, Refusal)]
    assert refused.code == "idempotency_key_reused"
    assert rich.run("SELECT count(*) FROM hold") == [(1,)]


def test_names_are_written_and_found_whatever_they_hold(book: Processes) -> None:
    odd = 'quo"te \\back{slash},NULL'
    assert isinstance(book.transact([reserving(odd, 10)])[0], Hold)
    assert book.ask(lambda one: one.find_account(odd)) == "a"
    assert book.transact([reserving(odd, 10)])[0].reservation_id == odd
    assert book.ask(lambda one: one.find_account(f"{odd}\0")) is None, "the server would end the text at the zero"
    with pytest.raises(ValueError, match="zero character"):
        book.transact([reserving(f"{odd}\0", 10)])


def test_a_hold_that_a_commit_is_closing_is_seen_closed(rich: PreparedDatabase, book: Processes) -> None:
    """A hold is read as it is locked, so an operation that waited for the commit sees the closed hold."""
    book.transact([reserving("x", 10)])
    with rich.connect() as connection, ThreadPoolExecutor(1) as threads:
        with connection.transaction():
            connection.execute("UPDATE hold SET state = 'closed' WHERE reservation_id = 'x'")
            seen = Operation("a", ("x",), lambda context: (find(context, "x"), context.held))
            asked = threads.submit(book.transact, [seen])
            waits = "application_name = 'tokenbill holds' AND wait_event = 'transactionid'"
            deadline = monotonic() + 10
            while not rich.run(f"SELECT 1 FROM pg_stat_activity WHERE {waits} AND datname = current_database()"):
                assert monotonic() < deadline
        [(hold, held)] = asked.result()
    assert (hold.state, held) == ("closed", NOTHING)
