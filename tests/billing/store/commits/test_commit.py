"""A commit is one transaction: all or nothing, fenced by epoch, commit number and positions."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from own_database import PreparedDatabase
from store_records import FEE_PICO, LIMITS, QUOTA_MICRO, WALLET_PICO, Books

from billing.accounts.extras import Extras
from billing.commits.commit_record import Finding
from billing.commits.copy_text import account_row, bucket_row
from billing.commits.identities import HashHour, RecentNumbers, SourceState
from billing.commits.input_batch import PositionMove
from billing.errors import BrokenInvariant, CatalogMoved, DatabaseDown, Fenced, NotPrepared
from billing.log_time import RESEND_US
from billing.store import partition_rows as partition
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.times import HOUR_US

BIG_WALLET_PICO = 10**12 * 10**12
BIG_QUOTA_MICRO = 10**18 * 10**6


def test_what_was_committed_is_loaded_again(store: Store) -> None:
    books = Books(2)
    epoch, empty = store.acquire(2)
    assert (empty.commit_no, empty.partitions, set(empty.positions.values())) == (0, 4, {0})
    assert set(empty.next_sequences.values()) == {1}
    store.commit(epoch, books.opening(["a1", "a2"]))
    record = books.burning(["a1", "a2"])
    record.dedupe.sources.append(SourceState("https://未/编号", False))
    record.dedupe.sources.append(SourceState("urn:holes", True, ((1, 3), (7, 2**64 - 1)), (2,)))
    record.dedupe.hours += [HashHour(0, b"x" * 20), HashHour(3_600_000_000, b"y" * 20)]
    record.forward_next = {("usage.forwarded", 1): 1}
    record.counts.forwarded = 1
    record.forward_cursors = {("commands.forwarded", 3): 5}
    store.commit(epoch, record)

    second, state = store.acquire(2)
    assert second == epoch + 1
    assert (state.commit_no, state.log_time_us) == (2, 200)
    assert state.positions == {
        "account.commands": 6, "commands.forwarded": 0, "usage.events": 2, "usage.forwarded": 0,
    }  # fmt: skip
    assert state.next_sequences["usage.rated"] == 3
    assert state.forward_next == {("usage.forwarded", 1): 1}
    assert state.forward_cursors == {("commands.forwarded", 3): 5}
    assert sorted(state.sources, key=lambda s: s.source) == sorted(record.dedupe.sources, key=lambda s: s.source)
    assert state.recent == record.dedupe.recent
    assert store.load_hours(2, [3_600_000_000, 7]) == [HashHour(3_600_000_000, b"y" * 20)]
    loaded = store.load_accounts(["a2", "a1", "nobody"])
    assert list(loaded) == [books.accounts["a1"], books.accounts["a2"]]
    assert store.positions([2])["usage.events", 2] == 2
    assert store.known_commands([("urn:crm", "open-a1"), ("urn:crm", "x")]) == {("urn:crm", "open-a1"): "accepted"}
    assert store.known_payments([("a1", "p-1"), ("a1", "p-2")]) == {("a1", "p-1")}
    assert store.due_accounts(2, 900, 10) == ["a1", "a2"]
    assert store.due_accounts(2, 900, 1) == ["a1"]
    assert store.due_accounts(2, 899, 10) == []
    assert store.due_accounts(1, 900, 10) == []


def test_only_the_last_numbers_of_a_source_are_kept(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    for highest in (10, 100_000, 165_536, 165_537):
        record = books.burning(["a1"])
        record.dedupe.recent = [RecentNumbers("urn:node-1", highest, b"%d" % highest)]
        store.commit(epoch, record)
    assert [recent.highest for recent in store.acquire(0)[1].recent] == [165_536, 165_537]
    assert database.run("SELECT highest FROM dedupe_recent ORDER BY 1") == [(165_536,), (165_537,)]
    assert audit(database.report_url).passed


def test_a_commit_deletes_the_hours_that_its_time_limit_excludes(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    hours = [hour * HOUR_US for hour in (1, 2, 3)]
    record = books.opening(["a1"])
    record.dedupe.hours = [HashHour(hour, b"h") for hour in hours]
    store.commit(epoch, record)
    assert [hour.hour_us for hour in store.load_hours(0, hours)] == hours
    record = books.burning(["a1"])
    record.log_time_us = LIMITS["past_limit_us"] + RESEND_US + 6 * HOUR_US - 1
    store.commit(epoch, record)
    assert [hour.hour_us for hour in store.load_hours(0, hours)] == hours[2:]
    assert audit(database.report_url).passed


def test_greatest_values_are_exact(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1", "a2"], BIG_WALLET_PICO, BIG_WALLET_PICO, BIG_QUOTA_MICRO))
    store.commit(epoch, books.burning(["a1", "a2"], BIG_QUOTA_MICRO - 1, BIG_WALLET_PICO - 1))
    [first, _] = store.load_accounts(["a1", "a2"])
    assert first.wallet_pico == BIG_WALLET_PICO
    assert (first.buckets[0].remaining_micro, first.buckets[0].liability_pico) == (1, 1)
    assert audit(database.app_url).passed


def test_another_epoch_is_fenced(store: Store) -> None:
    books = Books()
    zombie, _ = store.acquire(0)
    owner, _ = store.acquire(0)
    record = books.opening(["a1"])
    with pytest.raises(Fenced):
        store.commit(zombie, record)
    assert list(store.load_accounts(["a1"])) == []
    store.commit(owner, record)


def test_the_same_commit_twice_is_fenced(store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    record = books.opening(["a1"])
    store.commit(epoch, record)
    with pytest.raises(Fenced):
        store.commit(epoch, record)


def test_a_position_elsewhere_is_fenced(store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    record = books.opening(["a1"])
    for moves in ([PositionMove("account.commands", 1, 4)], [*record.positions, PositionMove("unknown", 0, 1)]):
        with pytest.raises(Fenced):
            store.commit(epoch, replace(record, positions=moves))
    assert store.positions([0])["account.commands", 0] == 0
    store.commit(epoch, record)


def test_a_moved_catalogue_refuses_the_commit_and_leaves_the_partition_as_it_was(
    database: PreparedDatabase, store: Store
) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    database.run("UPDATE catalog_state SET epoch = 7")
    record = books.opening(["a1"])
    with pytest.raises(CatalogMoved) as raised:
        store.commit(epoch, record)
    assert raised.value.new_epoch == 7
    store.commit(epoch, replace(record, catalog_epoch=7))


def test_two_owners_at_once_never_both_commit(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            number = store.acquire(1)[1].commit_no
            book = Books(1)
            book.commit_no = number
            book.offsets["account.commands"] = store.positions([1])["account.commands", 1]
            book.sequences["account.events"] = 1 + 3 * number
            record = book.opening([f"a{number}"])

            def attempt(record=record) -> str:
                try:
                    store.commit(store.acquire(1)[0], record)
                except Fenced:
                    return "fenced"
                return "committed"

            outcomes = [future.result() for future in [pool.submit(attempt) for _ in range(4)]]
            assert outcomes.count("committed") <= 1
            assert store.acquire(1)[1].commit_no == number + outcomes.count("committed")


def test_a_changed_bucket_that_does_not_exist_breaks_and_writes_nothing(store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    record = books.burning(["a1"])
    record.changes.buckets_changed += record.changes.buckets_changed.replace(b"a1\t", b"a9\t")
    with pytest.raises(BrokenInvariant, match="2 changed buckets"):
        store.commit(epoch, record)
    [unchanged] = store.load_accounts(["a1"])
    assert unchanged.buckets[0].remaining_micro == QUOTA_MICRO


def test_terms_of_accounts_and_buckets_are_replaced(store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1", "a2"]))
    record = books.burning(["a2"])
    changed = books.accounts["a1"]
    changed.credit_limit_pico += 1
    changed.extras = Extras(gift_pico=2**70)
    [lengthened] = changed.buckets
    lengthened.amount_micro += 5
    lengthened.carried_cycles = 2
    lengthened.valid_until_us = 700
    lengthened.lapse_at_us += 20
    record.changes.accounts_replaced = account_row(changed)
    record.changes.buckets_replaced = bucket_row("a1", lengthened)
    store.commit(epoch, record)
    assert list(store.load_accounts(["a1", "a2"])) == [changed, books.accounts["a2"]]
    wrong = books.burning(["a2"])
    wrong.changes.accounts_replaced = account_row(changed).replace(b"a1", b"a9")
    with pytest.raises(BrokenInvariant, match="1 changed accounts"):
        store.commit(epoch, wrong)


def test_an_account_of_another_partition_is_not_changed(store: Store) -> None:
    books, others = Books(0), Books(1)
    epoch, _ = store.acquire(0)
    other_epoch, _ = store.acquire(1)
    store.commit(epoch, books.opening(["a1"]))
    others.accounts = books.accounts
    with pytest.raises(BrokenInvariant):
        store.commit(other_epoch, others.burning(["a1"]))


@pytest.mark.parametrize("again", ["commands_seen", "payments", "accounts"])
def test_what_is_unique_for_ever_cannot_be_written_twice(store: Store, again: str) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    first = books.opening(["a1"])
    store.commit(epoch, first)
    second = books.opening(["a2"])
    if again == "accounts":
        second.changes.accounts_new = first.changes.accounts_new
    else:
        setattr(second, again, getattr(first, again))
    with pytest.raises(BrokenInvariant):
        store.commit(epoch, second)


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_text_that_postgresql_cannot_hold_is_named_before_anything_is_written(store: Store, text: str) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    record = books.opening(["a1"])
    record.commands_seen[0] = ("urn:crm", text, "accepted")
    with pytest.raises(BrokenInvariant):
        store.commit(epoch, record)


@pytest.mark.parametrize(
    "text", ["tab\there", "new\nline", "back\\slash", "\\N", "\\.", "\x01\x0b\x0c\x08\r\x7f", "词元 🧮"]
)
def test_any_text_comes_back_as_it_was_and_passes_the_audit(
    database: PreparedDatabase, store: Store, text: str
) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    record = books.opening([text])
    record.commands_seen = [(text, f"{text}{n}", "accepted") for n in range(3)]
    record.payments = [(text, text)]
    record.postings = [replace(line, detail=text) for line in record.postings]
    record.findings = [Finding("kind", text)]
    store.commit(epoch, record)
    burning = books.burning([text])
    burning.rollups = [replace(row, model=text, site=text) for row in burning.rollups]
    burning.dedupe.sources = [SourceState(text, True, ((1, 1),))]
    store.commit(epoch, burning)
    assert store.load_accounts([text])[0].account == text
    assert store.known_payments([(text, text)]) == {(text, text)}
    assert store.acquire(0)[1].sources[0].source == text
    outcome = audit(database.app_url)
    assert outcome.passed, outcome


def test_an_unprepared_partition_is_named(store: Store) -> None:
    with pytest.raises(NotPrepared, match="no partition 9"):
        store.acquire(9)
    with pytest.raises(NotPrepared, match=r"\[9\]"):
        store.positions([0, 9])


def test_an_unprepared_database_is_named(server_url: str) -> None:
    store = Store(server_url)
    with pytest.raises(NotPrepared):
        store.catalog_epoch()
    store.close()


def test_lost_connections_are_one_error_and_the_next_call_connects_again(
    database: PreparedDatabase, store: Store
) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    # The session is terminated between the check of ownership and COPY, while a commit with a huge row is in progress.
    record = books.opening(["a1"])
    database.run(
        "CREATE FUNCTION tokenbill.fall() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$",
        "CREATE TRIGGER fall BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION fall()",
    )
    with pytest.raises(DatabaseDown):
        store.commit(epoch, record)
    database.run("DROP TRIGGER fall ON journal")
    epoch, state = store.acquire(0)
    assert state.commit_no == 0
    store.commit(epoch, record)
    database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                 " AND pid <> pg_backend_pid()")  # fmt: skip
    assert store.acquire(0)[1].commit_no == 1


def test_a_server_that_is_not_there_is_one_error() -> None:
    store = Store("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseDown):
        store.catalog_epoch()


def test_a_commit_that_hangs_is_ended_by_the_next_owner(
    database: PreparedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "HUNG_COMMIT_SECONDS", 1)
    with database.login_of_worker() as url:
        # A worker stopped (SIGSTOP) in the middle of a COPY leaves a session that no timeout of the server ends.
        hung = psycopg.connect(url)
        hung.execute("SET search_path = tokenbill")
        hung.execute("UPDATE partition_state SET commit_no = 1 WHERE partition = 0")
        hung.execute("SELECT set_config('application_name', 'tokenbill commit 0', true)")
        hung.pgconn.exec_(b"COPY journal FROM STDIN")
        with closing(Store(url)) as store:
            epoch, state = store.acquire(0)
            assert (epoch, state.commit_no) == (1, 0)
        hung.close()


def test_commits_of_different_partitions_do_not_wait_for_each_other(store: Store, database: PreparedDatabase) -> None:
    books = Books(0)
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    with database.connect() as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO book_time VALUES ('retail-cn', 3, 1)")
        other.execute("SELECT pg_advisory_xact_lock_shared(%s)", (0x7462_6361,))
        other.execute("UPDATE partition_state SET commit_no = commit_no WHERE partition = 3")
        store.commit(epoch, books.burning(["a1"]))
        other.execute("ROLLBACK")


def test_the_digest_follows_from_the_rows_alone(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    [(digest, previous)] = database.run("SELECT digest, previous_digest FROM commit")
    assert previous == bytes(32)
    assert len(digest) == hashlib.sha256().digest_size
    assert database.run("SELECT digest FROM partition_state WHERE partition = 0") == [(digest,)]
    assert database.run("SELECT sum(amount_pico) FROM journal WHERE account_code = 'cash'") == [
        (WALLET_PICO + FEE_PICO,)
    ]
