"""The audit passes on consistent books, and each of its checks fails on the tampering that it must find."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner
from own_database import PreparedDatabase
from store_records import Books

from billing.catalog.entries import body_sha256
from billing.commits.commit_record import Finding
from billing.commits.identities import SourceState
from billing.store.api.keys import create_key
from billing.store.database import Database
from billing.store.proofs.administration import ADMINISTRATION
from billing.store.proofs.audit import CATALOG, CHAIN, HOLES, ROWS, SHARED, audit
from billing.store.proofs.audit_checks import CHECKS, FINDINGS
from billing.store.store import Store
from tokenbill.commands.audit import audit as audit_command

APPEND_ONLY = (
    *("journal", "commit", "rollup", "command_seen", "payment_ref", "suspense", "foreign_record", "conflict"),
    "partition_resume",
)

SUSPENSE = (
    "INSERT INTO suspense (partition, commit_no, row_no, topic, record_offset, log_time_us, reason, detail, headers,"
    " size_bytes, packing) VALUES ({}, 2, 1, 'usage.events', 0, 0, 'no_price', '', '[]', 0, 'plain')"
)
FOREIGN = (
    "INSERT INTO foreign_record (partition, commit_no, row_no, topic, record_offset, log_time_us, fault, headers,"
    " size_bytes, packing) VALUES ({}, 2, 1, 'usage.forwarded', 0, 0, 'no digest', '[]', 0, 'plain')"
)
CONFLICT = (
    "INSERT INTO conflict (partition, commit_no, row_no, topic, record_offset, log_time_us, account, source, id,"
    " headers, size_bytes, packing) VALUES ({}, 2, 1, 'usage.events', 0, 0, 'a1', 's', '1', '[]', 0, 'plain')"
)
TAMPERING = {
    "a partition stopped": (
        "INSERT INTO partition_stop (partition, kind, reason, worker) VALUES (0, 'missing', 'a hole', 'w')",
        {"stopped partitions"}),
    "a resumption that no commit has": (
        "INSERT INTO partition_resume (partition, commit_no, topic, first_offset, last_offset, kind, stop_reason,"
        " worker, stopped_at, reason, requested_key, requested_by, approved_key, approved_by)"
        " VALUES (0, 2, 'usage.events', 0, 1, 'missing', 'r', 'w', now(), 'r', 'k1', 'a', 'k2', 'b')",
        {"resumed partitions"}),
    "an acceptance of rows that no commit has": (
        "INSERT INTO row_acceptance (partition, commit_no, table_name, rows_before, total_before, rows_after,"
        " total_after, marks, reason, requested_key, requested_by, approved_key, approved_by)"
        " VALUES (0, 2, 'account', 1, '', 1, '', 0, 'r', 'k1', 'a', 'k2', 'b')", {"accepted rows"}),
    "a commit that claims an acceptance of rows": (
        "INSERT INTO finding (partition, commit_no, row_no, kind, detail)"
        " VALUES (0, 2, 77, 'rows_accepted', 'account of partition 0')", {"accepted rows"}),
    "a commit that claims a resumption": (
        "INSERT INTO finding (partition, commit_no, row_no, kind, detail)"
        " VALUES (0, 2, 77, 'partition_resumed', 'offsets are skipped')", {"resumed partitions"}),
    "offsets of a commit counted as skipped": (
        """UPDATE commit SET positions = jsonb_set(positions, '{0,3}', '1', true) WHERE commit_no = 2""",
        {"usage counts", CHAIN}),
    "more offsets skipped than there are": (
        """UPDATE commit SET positions = jsonb_set(positions, '{0,3}', '99', true) WHERE commit_no = 2""",
        {"positions", CHAIN}),
    "a journal line changed": ("UPDATE journal SET amount_pico = 1 WHERE line_no = 1", {"journal", CHAIN}),
    "journal lines changed in balance": (
        "UPDATE journal SET amount_pico = amount_pico * 2 WHERE partition = 0 AND commit_no = 1", {CHAIN, "wallets"}),
    "a journal line renamed": ("UPDATE journal SET detail = 'other' WHERE line_no = 2", {CHAIN}),
    "a journal line removed": ("DELETE FROM journal WHERE line_no = 2", {CHAIN, "trial balance"}),
    "journal of no commit": (
        "INSERT INTO journal VALUES (0, 99, 1, 'cash', 'CNY', '', 1), (0, 99, 2, 'cash', 'CNY', '', -1)", {CHAIN}),
    "journal of no partition": (
        "INSERT INTO journal VALUES (77, 1, 1, 'cash', 'CNY', '', 1), (77, 1, 2, 'cash', 'CNY', '', -1)", {"orphans"}),
    "a count changed": (
        "UPDATE commit SET rated = rated + 1, duplicate = duplicate - 1 WHERE commit_no = 2", {CHAIN, "rated events"}),
    "usage counted as less": ("UPDATE commit SET rated = rated - 1 WHERE commit_no = 2", {"usage counts"}),
    "commands counted as less": (
        "UPDATE commit SET commands_duplicate = commands_duplicate - 1 WHERE commit_no = 1", {"command counts"}),
    "a seen command removed": ("DELETE FROM command_seen WHERE id = 'open-a1'", {"accepted commands", CHAIN}),
    "a payment removed": ("DELETE FROM payment_ref WHERE account = 'a1'", {CHAIN}),
    "limits changed": ("UPDATE commit SET limits = '{}' WHERE commit_no = 1", {CHAIN}),
    "a digest changed": ("UPDATE commit SET digest = sha256('x') WHERE partition = 0 AND commit_no = 2", {CHAIN}),
    "the last commit removed": ("DELETE FROM commit WHERE partition = 0 AND commit_no = 3", {CHAIN, "positions"}),
    "a commit in the middle removed": ("DELETE FROM commit WHERE partition = 0 AND commit_no = 2", {CHAIN}),
    "a position moved": ("UPDATE position SET next_offset = 9 WHERE topic = 'usage.events'", {"positions"}),
    "positions of a commit changed": (
        """UPDATE commit SET positions = '[["usage.events", 5, 7]]' WHERE commit_no = 2""", {"positions", CHAIN}),
    "a position removed": ("DELETE FROM position WHERE topic = 'usage.forwarded'", {"positions"}),
    "an unused sequence removed": (
        "DELETE FROM output_sequence WHERE topic = 'settlement.entries'", {"output sequences"}),
    "an outbox row removed": ("DELETE FROM outbox WHERE commit_no = 2", {"outbox"}),
    "a relay said to be ahead": ("UPDATE relay_position SET commit_no = 2", {"outbox"}),
    "a partition's log time changed": ("UPDATE partition_state SET log_time_us = 7", {"partitions"}),
    "a partition too many": ("UPDATE installation SET value = '5' WHERE key = 'partitions'", {"partitions"}),
    "money moved from wallet to wallet": (
        "UPDATE account SET wallet_pico = wallet_pico + CASE account WHEN 'a1' THEN 50 ELSE -50 END * 10::numeric ^ 12"
        " WHERE account IN ('a1', 'a2')", {ROWS}),
    "a bucket's liability changed": ("UPDATE bucket SET liability_pico = liability_pico + 1", {"liability"}),
    "a bucket's quota changed": ("UPDATE bucket SET remaining_micro = remaining_micro + 1", {"quota"}),
    "a bucket's size changed": ("UPDATE bucket SET amount_micro = amount_micro + 1", {"quota"}),
    "a bucket removed": ("DELETE FROM bucket WHERE account = 'a1'", {"liability", "quota"}),
    "a wallet changed": ("UPDATE account SET wallet_pico = wallet_pico + 1 WHERE account = 'a1'", {"wallets"}),
    "absorbed usage changed": ("UPDATE account SET absorbed_micro = 1 WHERE account = 'a1'", {"absorbed"}),
    "rollup revenue changed": ("UPDATE rollup SET revenue_pico = 1 WHERE commit_no = 2", {"revenue", CHAIN}),
    "rollup events changed": ("UPDATE rollup SET events = 9 WHERE commit_no = 2", {"rated events", CHAIN}),
    "a rollup's model changed": ("UPDATE rollup SET model = 'other' WHERE commit_no = 2", {CHAIN}),
    "a bill changed": (
        """UPDATE account SET extras = '{"bills": [{"amount_pico": 1}]}' WHERE account = 'a1'""", {"bills"}),
    "a transfer received that was not sent": (
        "INSERT INTO journal VALUES (0, 99, 1, 'transfer_clearing', 'CNY', 't', 1),"
        " (0, 99, 2, 'contract_liability', 'CNY', '', -1)", {"transfers", "liability", CHAIN}),
    "a transfer sent that nothing carries": (
        "INSERT INTO journal VALUES (0, 99, 1, 'transfer_clearing', 'CNY', 't', -1),"
        " (0, 99, 2, 'contract_liability', 'CNY', '', 1)", {"transfers", "liability", CHAIN}),
    "a message not counted": ("UPDATE commit SET messages_sent = 1 WHERE commit_no = 2", {"forwarding", CHAIN}),
    "a sequence moved": (
        "UPDATE output_sequence SET next_sequence = 99 WHERE topic = 'usage.rated'", {"output sequences"}),
    "an outbox payload changed": ("UPDATE outbox SET payload = 'x' WHERE commit_no = 1", {"outbox"}),
    "more applied than sent": ("INSERT INTO forward_cursor VALUES ('usage.forwarded', 1, 0, 1)", {"forwarding"}),
    "more sent than counted": ("INSERT INTO forward_next VALUES ('usage.forwarded', 0, 1, 1)", {"forwarding"}),
    "suspense of what was not rejected": (SUSPENSE.format(0), {"suspense", CHAIN}),
    "suspense of no partition": (SUSPENSE.format(77), {"orphans"}),
    "a foreign record that was not counted": (FOREIGN.format(0), {"foreign records", CHAIN}),
    "a foreign record of no partition": (FOREIGN.format(77), {"orphans"}),
    "a conflict that nobody reported": (CONFLICT.format(0), {"conflicts", CHAIN}),
    "a reported conflict removed": ("INSERT INTO finding VALUES (0, 2, 9, 'identity_conflict', '')", {"conflicts"}),
    "a conflict of no partition": (CONFLICT.format(77), {"orphans"}),
    "a catalogue entry changed": ("UPDATE catalog_entry SET body = jsonb_set(body, '{version}', '9')", {"catalogue"}),
}  # fmt: skip


@pytest.fixture
def books(database: PreparedDatabase, store: Store) -> PreparedDatabase:
    """A database with two partitions of three consistent commits each, and two keys."""
    with database.connect("tokenbill_app") as connection:
        connection.execute(
            "INSERT INTO api_key (key_id, name, secret_sha256, role) VALUES"
            " ('k1', 'a', sha256('a'), 'admin'), ('k2', 'b', sha256('b'), 'admin')"
        )
    for partition in (0, 1):
        kept = Books(partition)
        epoch, _ = store.acquire(partition)
        names = [f"a{2 * partition + n}" for n in (1, 2)]
        store.commit(epoch, kept.opening(names))
        for _ in range(2):
            record = kept.burning(names)
            record.dedupe.sources = [SourceState(f"urn:node-{partition}", True, ((1, kept.offsets["usage.events"]),))]
            store.commit(epoch, record)
    return database


def tamper(database: PreparedDatabase, statement: str) -> None:
    """Change rows as a superuser can: disable the triggers, run the statement, and enable them again."""
    off = [f"ALTER TABLE {table} DISABLE TRIGGER append_only" for table in (*APPEND_ONLY, "catalog_entry")]
    on = [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only" for table in (*APPEND_ONLY, "catalog_entry")]
    database.run(*off, statement, *on)


def failed(database: PreparedDatabase) -> set[str]:
    return {result.name for result in audit(database.report_url).checks if result.count}


def test_books_that_add_up_pass(books: PreparedDatabase) -> None:
    outcome = audit(books.report_url)
    assert outcome.passed, outcome
    assert [result.count for result in outcome.findings] == [0] * len(outcome.findings)


def test_an_empty_database_passes(untouched: PreparedDatabase) -> None:
    assert audit(untouched.report_url).passed


@pytest.mark.parametrize("what", TAMPERING)
def test_what_a_superuser_changes_is_found(
    books: PreparedDatabase, store: Store, publish_samples: Callable[[Store], None], what: str
) -> None:
    statement, expected = TAMPERING[what]
    if "catalog_entry" in statement:
        publish_samples(store)
        assert audit(books.report_url).passed
    tamper(books, statement)
    assert expected <= failed(books)


def test_every_check_has_a_canary() -> None:
    caught = set[str]().union(*(expected for _, expected in TAMPERING.values()))
    assert {check.name for check in CHECKS} | {CHAIN, ROWS, CATALOG} <= caught


def test_findings_are_listed_and_fail_nothing(database: PreparedDatabase, store: Store) -> None:
    kept = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, kept.opening(["a1"]))
    record = kept.burning(["a1"])
    record.dedupe.sources = [
        SourceState("urn:node-1", True, ((3, 3), (5, 9), (20, 20))), SourceState("urn:plain", False)]  # fmt: skip
    record.findings = [Finding("sequence_reused", "urn:node-1 42"), Finding("sequence_reused", "urn:node-1 43")]
    record.forward_next = {("usage.forwarded", 1): 1}
    record.counts = replace(record.counts, rated=1, forwarded=1)
    record.positions = [replace(record.positions[0], end=2)]
    store.commit(epoch, record)
    outcome = audit(database.report_url)
    assert outcome.passed, outcome
    shown = {result.name: result.shown for result in outcome.findings}
    assert shown == {
        FINDINGS[0].name: ("usage.forwarded from 0 to 1: 1 of 1",),
        FINDINGS[1].name: ("sequence_reused: 2, the first in partition 0 commit 2: urn:node-1 42",),
        FINDINGS[2].name: (),
        FINDINGS[3].name: (),
        FINDINGS[4].name: (),
        SHARED: (),
        HOLES: ("urn:node-1: 13 missing (1–2, 4, 10–19)",),
    }


def test_holes_are_those_of_the_union_over_partitions(database: PreparedDatabase, store: Store) -> None:
    for partition, runs in ((0, ((1, 1), (3, 3))), (1, ((2, 2), (4, 9)))):
        kept = Books(partition)
        epoch, _ = store.acquire(partition)
        record = kept.opening([f"a{partition}"])
        record.dedupe.sources = [SourceState("urn:gateway", True, runs)]
        store.commit(epoch, record)
    assert [result.count for result in audit(database.report_url).findings] == [0] * (len(FINDINGS) + 2)


def test_the_command_says_what_failed_and_exits_1(books: PreparedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", books.app_url)
    good = CliRunner().invoke(audit_command, [])
    assert (good.exit_code, good.output.splitlines()[-1]) == (0, "everything adds up")
    tamper(books, "UPDATE account SET wallet_pico = 0 WHERE account = 'a1'")
    bad = CliRunner().invoke(audit_command, [])
    assert bad.exit_code == 1
    assert "FAIL  wallets" in bad.output
    assert "FAIL  rows" in bad.output
    assert "account (account a1): the row is not as a commit wrote it" in bad.output
    assert bad.output.endswith(f"2 of {len(CHECKS) + 4} checks failed\n")


def test_a_number_used_on_two_partitions_is_a_finding(database: PreparedDatabase, store: Store) -> None:
    """A rejected event used no number; its repair may be rated on another partition."""
    seen = [(((1, 9),), (2, 7)), (((2, 3), (7, 12)), (8,))]
    for partition, (runs, refused) in enumerate(seen):
        books = Books(partition)
        epoch, _ = store.acquire(partition)
        record = books.opening([f"a{partition}"])
        record.dedupe.sources = [SourceState("urn:node-1", True, runs, refused), SourceState("urn:plain", False)]
        store.commit(epoch, record)
    outcome = audit(database.report_url)
    assert outcome.passed, outcome
    assert {result.name: result.shown for result in outcome.findings}[SHARED] == ("urn:node-1: 3, 9",)


KEY = "UPDATE api_key SET {} WHERE name = 'ingest'"
PAST_THE_PROGRAM = {
    "a key made admin": KEY.format("role = 'admin'"),
    "a key for every account": KEY.format("account = NULL"),
    "another secret": KEY.format("secret_sha256 = sha256('x')"),
    "a key in force again": KEY.format("revoked_at = NULL, expires_at = NULL"),
    "a key added": "INSERT INTO api_key (key_id, name, secret_sha256, role) VALUES ('k', 'mine', sha256('x'), 'admin')",
    "a key removed": "DELETE FROM api_key WHERE name = 'ingest'",
    "a setting changed": "UPDATE installation SET value = '3' WHERE key = 'partitions'",
    "the catalogue's epoch moved back": "UPDATE catalog_state SET epoch = epoch - 1",
    "a price changed, with its digest": "UPDATE catalog_entry SET body = body || '{\"a\": 1}', sha256 = 'x'",
    "an entry removed": "DELETE FROM catalog_entry",
    "a webhook added": "INSERT INTO webhook (webhook_id, url, secret, types) VALUES ('w', 'http://x', 's', '{}')",
    "a rating group added": "INSERT INTO rating_group VALUES (1, '{}')",
}
WATCHED = ("api_key", "webhook", "installation", "catalog_entry", "catalog_state", "rating_group")


@pytest.fixture
def administered(books: PreparedDatabase) -> PreparedDatabase:
    """Books with a key of the API, a catalogue entry, and a commit after both."""
    database = Database(books.app_url, 1)
    create_key(database, "ingest", "ingest", "a1", None, ["urn:worker:a1"])
    database.close()
    with books.connect("tokenbill_app") as connection:
        body = '{"kind": "price_book", "name": "b", "version": 1, "body_version": 1}'
        connection.execute(
            "INSERT INTO catalog_entry (kind, name, version, sha256, body, epoch)"
            " VALUES ('price_book', 'b', 1, %s, %s, 1)",
            (body_sha256(json.loads(body)), body),
        )
        connection.execute("UPDATE api_key SET revoked_at = now()")
        connection.execute("UPDATE catalog_state SET epoch = 1")
        connection.execute("UPDATE catalog_state SET epoch = 0")
    with Store(books.app_url) as store:
        kept = Books(0)
        epoch, state = store.acquire(0)
        record = replace(
            kept.opening(["a9"]), commit_no=state.commit_no + 1, positions=[], outbox=[], next_sequences={}
        )
        store.commit(epoch, record)
    return books


@pytest.mark.parametrize("logged", [True, False], ids=["triggers at work", "triggers off"])
@pytest.mark.parametrize("change", PAST_THE_PROGRAM)
def test_a_change_of_an_administrative_table_past_the_program_is_found(
    administered: PreparedDatabase, change: str, logged: bool
) -> None:
    assert ADMINISTRATION not in failed(administered)
    off = [f"ALTER TABLE {table} DISABLE TRIGGER administration" for table in WATCHED]
    on = [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER administration" for table in WATCHED]
    statement = PAST_THE_PROGRAM[change]
    if logged:
        tamper(administered, statement)
    else:
        administered.run("ALTER TABLE catalog_entry DISABLE TRIGGER append_only", *off, statement, *on)
    assert ADMINISTRATION in failed(administered)


def test_a_log_of_changes_that_is_written_anew_is_found_by_the_commits(administered: PreparedDatabase) -> None:
    """The product's own functions give a log that is consistent; the commits hold the former head."""
    administered.run(
        "ALTER TABLE api_key DISABLE TRIGGER administration",
        "ALTER TABLE administration_log DISABLE TRIGGER append_only",
        KEY.format("role = 'admin'"),
        "UPDATE administration_log SET after = after || '{\"role\": \"admin\"}' WHERE table_name = 'api_key'",
        """DO $$ DECLARE entry administration_log; last bytea := decode(repeat('00', 32), 'hex'); BEGIN
            FOR entry IN SELECT * FROM administration_log ORDER BY number LOOP
                last := administration_digest(last, entry);
                UPDATE administration_log SET digest = last WHERE number = entry.number;
            END LOOP;
            UPDATE administration_head SET digest = last;
        END $$""",
        "ALTER TABLE api_key ENABLE ALWAYS TRIGGER administration",
        "ALTER TABLE administration_log ENABLE ALWAYS TRIGGER append_only",
    )
    (result,) = (one for one in audit(administered.report_url).checks if one.name == ADMINISTRATION)
    assert result.count > 0 and all("another now" in text for text in result.shown)


def test_the_log_of_changes_holds_no_secret_in_clear(administered: PreparedDatabase) -> None:
    with administered.connect("tokenbill_app") as connection:
        connection.execute(
            "INSERT INTO webhook (webhook_id, url, secret, types) VALUES ('w', 'http://x', 'whsec_x', '{}')"
        )
    (row,) = administered.run("SELECT after FROM administration_log WHERE table_name = 'webhook'")
    assert row[0]["secret"] == hashlib.sha256(b"whsec_x").hexdigest()
    assert ADMINISTRATION not in failed(administered)
