"""Holds on real PostgreSQL: what is granted is never more than there is, however operations and commits meet."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Barrier, BrokenBarrierError
from typing import Any

import psycopg
import pytest
from store_database import PreparedDatabase
from store_records import Books

from billing.holds import NOTHING, Held, Refused
from billing.reservations import (
    OPEN,
    RESERVATION,
    Hold,
    Operation,
    Scene,
    Terms,
    extend,
    find,
    release,
    reserve,
    settle,
)
from billing.store import Store, reports
from billing.store.database import Database
from billing.store.holds import HoldBook

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
PICO_A_TOKEN = 2 * 10**6  # a million for two yuan


class UnlockedBook(HoldBook):
    """What it would be without the lock: the test of the test."""

    LOCK_HEADS = "SELECT FROM hold_head WHERE account = ANY (%s::text[])"


@pytest.fixture
def rich(database: PreparedDatabase, store: Store, publish_samples: Callable[[Store], None]) -> PreparedDatabase:
    """Three accounts of one partition, each with 20 yuan (its bucket lapsed); a token costs two millionths."""
    publish_samples(store)
    made = Books()
    made.catalog_epoch = store.catalog_epoch()
    epoch, _ = store.acquire(0)
    store.commit(epoch, made.opening(["a", "b", "c"]))
    return database


@pytest.fixture
def book(rich: PreparedDatabase) -> Iterator[HoldBook]:
    with closing(Database(rich.app_url, CLIENTS)) as connections:
        yield HoldBook(connections)


def reserving(
    name: str, tokens: int, of: str = "a", meet: Callable[[], None] | None = None, key: str = "k"
) -> Operation:
    def decide(scene: Scene) -> Any:
        if meet is not None:
            meet()
        hold = Hold(name, of, RESERVATION, OPEN, NOTHING, Terms(DIMENSIONS), 0, 0)
        return reserve(scene, hold, (("input", tokens),), MINUTE_US, key, False)

    return Operation(of, (name,), decide)


def held_pico(database: PreparedDatabase, of: str = "a") -> int:
    return int(
        database.run(f"SELECT coalesce(sum(wallet_pico), 0) FROM hold WHERE state = 'open' AND account = '{of}'")[0][0]
    )


@pytest.mark.parametrize("locked", [True, False])
def test_two_at_once_overspend_only_without_the_lock(rich: PreparedDatabase, locked: bool) -> None:
    """Both wait for each other between reading and writing. With the lock the second cannot read until the first wrote;
    without it both read the same balance, and each takes 15 of 20 yuan."""
    both_have_read = Barrier(2)

    def meet() -> None:
        try:
            both_have_read.wait(1.0)
        except BrokenBarrierError:
            assert locked, "without the lock both are in at once"

    with closing(Database(rich.app_url, 2)) as connections:
        made = HoldBook(connections) if locked else UnlockedBook(connections)
        made.transact([reserving("first", 1)])  # the account's head exists: making it would be a lock too
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(made.transact, [reserving(name, 7_500_000, meet=meet)]) for name in ("x", "y")]
            granted = [one.result()[0] for one in asked]
    refused = [one for one in granted if isinstance(one, Refused)]
    overspent = held_pico(rich) > 20 * 10**12
    assert overspent == (not locked)
    assert [one.code for one in refused] == (["insufficient_balance"] if locked else [])


def test_sixteen_clients_never_hold_more_than_there_is(rich: PreparedDatabase, book: HoldBook) -> None:
    """Each asks for an eighth of an account again and again; releases and extensions in between."""
    tokens = 20 * 10**12 // PICO_A_TOKEN // 8

    more = (("input", tokens),)

    def client(number: int) -> int:
        granted = 0
        for turn in range(20):
            of = "abc"[(number + turn) % 3]
            name = f"{number}-{turn}"
            # In one transaction with another account's, in either order: no deadlock.
            other = "abc"[(number + turn + 1) % 3]
            answers = book.transact([reserving(name, tokens, of), reserving(name + "'", tokens, other)])
            granted += sum(isinstance(answer, Hold) for answer in answers)
            if turn % 3 == 0:
                book.transact([Operation(of, (name,), lambda scene, name=name: release(scene, name))])
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
    # Nothing was lost either: what is free can be held to the last token.
    free_tokens = (20 * 10**12 - held_pico(rich, "a")) // PICO_A_TOKEN
    if free_tokens:
        assert isinstance(book.transact([reserving("last", free_tokens)])[0], Hold)
    assert isinstance(book.transact([reserving("over", 1)])[0], Refused)


def test_a_burn_is_seen_with_the_end_of_its_hold_or_not_at_all(rich: PreparedDatabase, book: HoldBook) -> None:
    """A commit lowers the balance and closes the hold in one transaction, again and again, while others ask whether the
    whole rest is free: it never is."""
    tokens = 1_000_000
    reader = closing(Database(rich.app_url, 2))
    with reader as connections, ThreadPoolExecutor(1) as threads:
        asking = HoldBook(connections)
        stop = False

        def ask() -> int:
            asked = 0
            while not stop:

                def decide(scene: Scene) -> tuple[int, int]:
                    assert scene.account is not None
                    return scene.account.wallet_pico, scene.held.wallet_pico

                wallet_pico, held = asking.transact([Operation("a", (), decide)])[0]
                # Before its commit a hold stands for the money, afterwards the money is gone: 2 yuan are never free.
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
                    # Back to the beginning in one step: the money returns together with a new hold.
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
    rich: PreparedDatabase, store: Store, book: HoldBook
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


def test_a_repeated_request_finds_what_it_made(book: HoldBook) -> None:
    first = book.transact([reserving("x", 10)])[0]
    assert book.transact([reserving("x", 10)])[0] == first
    other = book.transact([reserving("x", 11, key="other")])[0]
    assert isinstance(other, Refused) and other.code == "idempotency_key_reused"
    assert book.find_account("x") == "a" and book.find_account("y") is None


def test_an_expired_hold_counts_no_more_and_goes_after_a_day(rich: PreparedDatabase, book: HoldBook) -> None:
    assert isinstance(book.transact([reserving("x", 10_000_000)])[0], Hold)
    assert isinstance(book.transact([reserving("y", 1)])[0], Refused)
    rich.run("UPDATE hold SET expires_us = expires_us - 60000000")
    assert isinstance(book.transact([reserving("y", 10_000_000)])[0], Hold)
    used = Operation("a", ("x", "x/1"), lambda s: settle(s, "x", (("input", 3),), "1", "1", final=True))
    late = book.transact([used])[0]
    assert late.problem.code == "reservation_expired" and '"usage":{"input":3}' in late.event
    assert book.clean() == []
    rich.run("UPDATE hold SET created_us = created_us - 61000000 WHERE event IS NOT NULL")
    assert book.clean() == [late.event], "its commit was not seen: it is sent again"
    assert book.clean() == [], "once"
    rich.run("UPDATE hold SET expires_us = 5")
    book.clean()
    assert rich.run("SELECT * FROM hold") == []


def test_reports_say_what_is_reserved_now(rich: PreparedDatabase, store: Store, book: HoldBook) -> None:
    def put(scene: Scene) -> None:
        for name, micro, lasts_us in (("x", 10**6, MINUTE_US), ("y", 5 * 10**5, MINUTE_US), ("late", 10**6, 0)):
            held = Held({"g1/1": micro})
            expires_us = scene.now_us + lasts_us
            scene.put(Hold(name, "b", RESERVATION, OPEN, held, Terms(DIMENSIONS), scene.now_us, expires_us))

    book.transact([Operation("b", (), put)])
    rows = {row["account"]: row["reserved"] for row in reports.balances(rich.report_url)}
    assert rows == {"a": "0", "b": "1.5", "c": "0"}


def test_a_new_catalogue_is_used_at_once(store: Store, book: HoldBook, catalog_of: Callable[..., Any]) -> None:
    before = book.transact([reserving("x", 10)])[0]
    store.publish(catalog_of((2, "2026-11-02T00:00:00+08:00", "4")))
    after = book.transact([reserving("y", 10)])[0]
    assert after.held.wallet_pico == 2 * before.held.wallet_pico


def test_the_account_is_read_as_the_worker_reads_it(rich: PreparedDatabase, store: Store, book: HoldBook) -> None:
    rich.run("UPDATE bucket SET lapse_at_us = NULL", """UPDATE account SET extras = '{"gift_pico": 7}'""")
    seen = book.transact([Operation("b", (), lambda scene: scene.account)])[0]
    assert seen.extras.gift_pico == 7 and len(seen.buckets) == 1
    assert [seen] == store.load_accounts(["b"])
    unknown = book.transact([Operation("nobody", ("x",), lambda scene: (scene.account, find(scene, "x")))])[0]
    assert unknown[0] is None and unknown[1].code == "unknown_reservation"


def test_workers_of_reports_cannot_hold_anything(rich: PreparedDatabase) -> None:
    with rich.connect("tokenbill_report") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM hold")
