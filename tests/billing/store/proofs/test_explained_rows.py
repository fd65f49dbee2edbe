"""`audit --explain` names the rows of a table that no commit wrote as they are, and says what it cannot name."""

from collections.abc import Mapping
from json import loads
from typing import Any

import pytest
from click.testing import CliRunner
from full_books import fill
from own_database import PreparedDatabase

from billing.commits.output_documents import balance_object
from billing.store.proofs.explained_rows import ExplainedRows, NotExplainable, explain_rows
from billing.store.store import Store
from schemas.json_text import dump_json
from tokenbill.commands.audit import audit as audit_command

Balances = dict[int, dict[str, Mapping[str, Any]]]


@pytest.fixture
def books(database: PreparedDatabase, store: Store) -> PreparedDatabase:
    fill(database, store)
    superuser(database, "DELETE FROM outbox")
    return database


@pytest.fixture
def published(books: PreparedDatabase, store: Store) -> Balances:
    """The balances that consumers have."""
    found: Balances = {0: {}, 1: {}}
    for name in ("a1", "a2", "a3", "a4"):
        [one] = store.load_accounts([name])
        [(partition,)] = books.run(f"SELECT partition FROM account WHERE account = '{name}'")
        found[partition][name] = loads(dump_json(balance_object(one)))
    return found


def superuser(database: PreparedDatabase, *statements: str) -> None:
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)


def rehash(database: PreparedDatabase, store_table: str) -> None:
    """Give every row its own hash, as a superuser can who knows the rule."""
    from billing.commits.row_hashes import row_hash
    from billing.store.summed_tables import SUMMED_TABLES

    columns = ", ".join(SUMMED_TABLES[store_table].columns)
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        cursor = connection.cursor()
        with cursor.copy(f"COPY (SELECT ctid, partition, {columns} FROM {store_table}) TO STDOUT") as copy:
            rows = [bytes(line)[:-1].split(b"\t", 2) for line in copy]
        for place, partition, text in rows:
            connection.execute(
                f"UPDATE {store_table} SET row_hash = %b WHERE ctid = %s::tid",
                (row_hash(store_table, int(partition), text), place.decode()),
            )


def explained(
    books: PreparedDatabase, table: str, published: Balances | str = "", partition: int | None = None
) -> ExplainedRows:
    return explain_rows(books.report_url, table, partition, published)


@pytest.mark.parametrize("table", ["account", "bucket"])
def test_nothing_is_named_where_nothing_was_changed(books: PreparedDatabase, published: Balances, table: str) -> None:
    found = explained(books, table, published)
    assert not found.found, found
    assert [text for text in found.not_named if "published balances do not have" in text] == found.not_named


def test_a_row_with_another_hash_is_named(books: PreparedDatabase, published: Balances) -> None:
    superuser(books, "UPDATE account SET price_book = 'friends' WHERE account = 'a3'")
    found = explained(books, "account", published)
    assert found.differ == ["partition 1: account (account a3)"]
    assert found.unlike_published == [
        "partition 1: account a3: price_book is friends, the last published balance says retail-cn"
    ]
    assert not explained(books, "account", published, 0).found
    assert not explained(books, "bucket", published).found


def test_a_row_that_was_changed_with_its_hash_is_named_by_the_published_balance(
    books: PreparedDatabase, published: Balances
) -> None:
    superuser(
        books,
        "UPDATE bucket SET amount_micro = amount_micro + 1000000, remaining_micro = remaining_micro + 1000000"
        " WHERE account = 'a1'",
    )
    rehash(books, "bucket")
    found = explained(books, "bucket", published)
    assert found.differ == []
    assert [text.partition(" is ")[0] for text in found.unlike_published] == [
        "partition 0: account a1: bucket g1/1: amount",
        "partition 0: account a1: bucket g1/1: remaining",
    ]


def test_inserted_and_deleted_rows_are_named_by_the_published_balance(
    books: PreparedDatabase, published: Balances
) -> None:
    superuser(
        books,
        "INSERT INTO bucket SELECT account, 'gift', plan, plan_version, bucket_no, unit, 1000000000000000,"
        " 1000000000000000, 0, valid_from_us, NULL, NULL, 0, status, partition, carried_cycles, NULL"
        " FROM bucket WHERE account = 'a1'",
        "DELETE FROM bucket WHERE account = 'a2'",
        "INSERT INTO account (account, currency, price_book, payment, credit_limit_pico, wallet_pico, absorbed_micro,"
        " absorbed_pico, status, clock_us, next_due_us, partition, extras)"
        " SELECT 'ghost', currency, price_book, payment, credit_limit_pico, wallet_pico, absorbed_micro, absorbed_pico,"
        " status, clock_us, next_due_us, partition, extras FROM account WHERE account = 'a1'",
        "DELETE FROM account WHERE account = 'a4'",
    )
    rehash(books, "bucket")
    rehash(books, "account")
    assert explained(books, "bucket", published).unlike_published == [
        "partition 0: account a1: bucket gift is in no published balance",
        "partition 0: account a2: bucket g1/1 was published, and the database has no such bucket",
    ]
    assert explained(books, "account", published).unlike_published == [
        "partition 0: account ghost: no balance of it was ever published",
        "partition 1: account a4: a balance was published, and the database has no such account",
    ]
    assert explained(books, "bucket", published).without_commit == [
        "partition 1: bucket (account a4, grant_id g1/1): there is no such account"
    ]


def test_rows_of_no_commit_are_named(books: PreparedDatabase) -> None:
    superuser(
        books,
        "INSERT INTO dedupe_hour (hour_us, partition, commit_no, row_no, payload, log_hour_us)"
        " SELECT hour_us, partition, 99, row_no, payload, log_hour_us FROM dedupe_hour"
        " WHERE partition = 0 AND row_no = 1",
        "INSERT INTO finding (partition, commit_no, row_no, kind, detail) VALUES (1, 98, 1, 'x', 'y')",
        "INSERT INTO journal (partition, commit_no, line_no, account_code, currency, detail, amount_pico)"
        " VALUES (0, 97, 1, 'cash', 'CNY', '', 0)",
    )
    rehash(books, "dedupe_hour")
    [named] = explained(books, "dedupe_hour").without_commit
    assert "commit_no 99" in named and named.endswith("there is no such commit")
    assert explained(books, "finding").without_commit == [
        "finding (partition 1, commit_no 98, row_no 1): there is no such commit"
    ]
    assert explained(books, "journal").without_commit == [
        "journal (partition 0, commit_no 97, line_no 1): there is no such commit"
    ]
    assert explained(books, "journal", "", 1).without_commit == []


def test_rows_of_a_commit_whose_digest_does_not_match_are_named(books: PreparedDatabase) -> None:
    superuser(books, "ALTER TABLE rollup DISABLE TRIGGER append_only")
    superuser(books, "UPDATE rollup SET model = 'another' WHERE partition = 1 AND commit_no = 3")
    [named] = explained(books, "rollup").of_broken_commits
    assert named.startswith("partition 1 commit 3: the digest does not match the rows")
    assert "rollup (partition 1, commit_no 3, row_no 1)" in named
    assert explained(books, "rollup", "", 0).of_broken_commits == []


def test_what_cannot_be_named_is_said(books: PreparedDatabase, published: Balances) -> None:
    superuser(books, "DELETE FROM dedupe_source WHERE partition = 0 AND source = 'urn:plain'")
    found = explained(books, "dedupe_source")
    assert not found.found
    assert found.not_named[0].startswith("partition 0: dedupe_source has 2 rows, 3 were committed: no row")
    assert explained(books, "account", "Kafka is away").not_named[0].endswith("balances: Kafka is away")
    superuser(
        books,
        "INSERT INTO outbox (partition, commit_no, topic, row_no, records, first_sequence, payload)"
        " VALUES (1, 3, 'usage.rated', 1, 1, 1, '\\x00')",
    )
    [first, *_] = explained(books, "account", published).not_named
    assert first == "partition 1 was not compared with published balances: not all of its output is published"


def test_a_table_that_has_neither_sums_nor_commits_is_refused(books: PreparedDatabase) -> None:
    for table in ("webhook", "commit", "nothing", "account; DROP TABLE account"):
        with pytest.raises(NotExplainable, match="expected one of account, book_time, bucket"):
            explained(books, table)


def test_the_command_names_rows_and_exits_1(books: PreparedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", books.app_url)
    monkeypatch.delenv("TOKENBILL_KAFKA", raising=False)
    good = CliRunner().invoke(audit_command, ["--explain", "account"])
    assert (good.exit_code, good.output.splitlines()[-1]) == (0, "no row of account is named")
    assert "not named: rows were not compared with published balances: no address of Kafka is known" in good.output
    superuser(books, "UPDATE account SET status = 'closed' WHERE account = 'a1'")
    bad = CliRunner().invoke(audit_command, ["--explain", "account", "--partition", "0"])
    assert bad.exit_code == 1
    assert "not as a commit wrote it: partition 0: account (account a1)" in bad.output
    assert CliRunner().invoke(audit_command, ["--partition", "0"]).exit_code == 2
